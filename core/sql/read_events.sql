-- $1 types text[], $2 after xid text, $3 after id bigint, $4 below xid text, $5 limit integer. The next events
-- in (xid, id) order, below a horizon under which no transaction is still running: what commits later can
-- then not have a smaller place. The position comes as parameters: joined to its row, it would bound no index
-- scan, and every look would read the log from its start (seen: a second a million events).
select id, xid::text as xid, event_id, job_id, sequence, type, queue, data::text, at
from hammerwork.events
where (xid, id) > ($2::text::xid8, $3) and xid < $4::text::xid8 and type = any($1::text[])
order by events.xid, events.id
limit $5
