-- $1 bridge text, $2 reason text. Returns the name of a bridge that is known.
update hammerwork.bridges set paused_at = coalesce(paused_at, now()), pause_reason = $2
where name = $1 returning name
