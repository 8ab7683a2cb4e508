-- $1 bridge text. Returns the name, and whether the bridge was paused.
with before as (select name, paused_at is not null as paused from hammerwork.bridges where name = $1 for update)
update hammerwork.bridges as bridge set paused_at = null, pause_reason = null
from before where bridge.name = before.name returning bridge.name, before.paused
