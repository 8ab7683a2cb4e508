-- $1 sink text, $2 types text[], $3 after xid text, $4 after id bigint, $5 below xid text, $6 limit integer. The
-- next events in (xid, id) order, below a horizon under which no transaction is still running: what commits later
-- can then not have a smaller place. The position comes as parameters: joined to its row, it would bound no index
-- scan, and every look would read the log from its start (seen: a second a million events).
select id, xid::text as xid, event_id, job_id, sequence, type, queue, data::text, at,
       sink is not null as again
from hammerwork.events
where (xid, id) > ($3::text::xid8, $4) and xid < $5::text::xid8 and type = any($2::text[])
  and (sink is null or sink = $1)
order by events.xid, events.id
limit $6
