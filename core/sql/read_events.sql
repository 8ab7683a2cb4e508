-- $1 sink text, $2 limit integer. The sink's next events in (xid, id) order, only below the oldest
-- transaction that is still running: what commits later can then not have a smaller place.
select events.id, events.xid::text as xid, event_id, job_id, sequence, type, queue, data::text, at
from hammerwork.events
cross join (select position_xid, position_id, types from hammerwork.sinks
            where name = $1 and state = 'active') as sink
where (events.xid, events.id) > (sink.position_xid, sink.position_id)
  and events.xid < pg_snapshot_xmin(pg_current_snapshot())
  and events.type = any(sink.types)
order by events.xid, events.id
limit $2
