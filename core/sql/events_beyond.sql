-- $1 types text[], $2 from xid text, $3 job ids uuid[]. Of these jobs, the earliest event whose transaction is not
-- below a horizon but has committed: it may be earlier in its job's life than events below that horizon.
select job_id, min(sequence) as sequence
from hammerwork.events
where xid >= $2::text::xid8 and type = any($1::text[]) and job_id = any($3::uuid[]) and sink is null
group by job_id
