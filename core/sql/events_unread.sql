-- $1 before timestamptz. Whether an active sink still has to read events from before that time.
select exists (
    select from hammerwork.events
    join hammerwork.sinks on events.type = any(sinks.types) and sinks.state = 'active'
        and (events.sink is null or events.sink = sinks.name)
    where events.at < $1 and (events.xid, events.id) > (sinks.position_xid, sinks.position_id)
) as unread
