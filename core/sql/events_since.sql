-- $1 types text[], $2 since timestamptz, $3 after xid text, $4 after id bigint, $5 limit integer.
-- For replays: the kept events from a time on, in log order.
select id, xid::text as xid, event_id, job_id, sequence, type, queue, data::text, at,
       sink is not null as again
from hammerwork.events
where type = any($1::text[]) and at >= $2 and (xid, id) > ($3::text::xid8, $4) and sink is null
order by events.xid, events.id limit $5
