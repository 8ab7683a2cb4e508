-- $1 ids uuid[] of jobs stored in this transaction. The events that enqueue.sql writes by itself.
insert into hammerwork.events (job_id, sequence, type, queue, data)
select id, 1, 'job.enqueued', queue,
       jsonb_build_object('priority', priority, 'run_at', run_at, 'correlation_id', correlation_id)
from hammerwork.jobs
where id = any(array(select unnest($1::uuid[]))) and queue not like 'sink.%'
order by id
