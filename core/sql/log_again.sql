-- $1 sink text, $2 from xid text, $3 from id bigint, $4 to xid text, $5 to id bigint, $6 ids bigint[]. Copies of
-- these events, all between the two places, behind the end of the log, for this sink alone.
insert into hammerwork.events (event_id, job_id, sequence, type, queue, data, at, sink)
select event_id, job_id, sequence, type, queue, data, at, $1
from hammerwork.events
where (xid, id) >= ($2::text::xid8, $3) and (xid, id) <= ($4::text::xid8, $5) and id = any($6::bigint[])
order by events.xid, events.id
