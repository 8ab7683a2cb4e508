-- $1 name text, $2 state text, $3 reason text. Its queue of deliveries pauses and resumes with it, and an
-- operator event is written when it is disabled. Returns the name when this changed something.
with changed as (
    update hammerwork.sinks set state = $2, reason = $3, failing_since = null
    where name = $1 and state <> $2
    returning name
), queue as (
    insert into hammerwork.queues (name, paused_at, pause_reason)
    select 'sink.' || name, case when $2 = 'active' then null else now() end, $3 from changed
    on conflict (name) do update set paused_at = excluded.paused_at, pause_reason = excluded.pause_reason
), noted as (
    insert into hammerwork.events (type, data)
    select 'sink.disabled', jsonb_build_object('sink', name, 'reason', $3::text)
    from changed where $2 = 'disabled' and hammerwork.event_wanted('sink.disabled')
)
select name from changed
