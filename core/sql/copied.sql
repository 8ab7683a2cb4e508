-- $1 queues text[]. After a COPY of jobs, in its transaction: tells their idle workers when it commits, and
-- answers whether any sink wants to hear of new jobs (then note_enqueued.sql is due).
select hammerwork.event_wanted('job.enqueued') as wanted, count(said) as announced
from (select pg_notify('hammerwork', 'queue ' || name)::text as said from unnest($1::text[]) as name) as notified
