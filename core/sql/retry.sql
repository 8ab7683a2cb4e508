-- $1 ids uuid[]. Finished jobs come back as new chances (attempt 0, the lease kept, so that whoever ran
-- them before stays fenced); scheduled ones become due now. Their open dead letters count as replayed.
-- Idle workers hear of it when this commits. Returns id and queue of what will run.
with back as (
    delete from hammerwork.history where id = any($1::uuid[])
    returning *
), stored as (
    insert into hammerwork.jobs
        (id, queue, state, priority, run_at, attempt, max_attempts, lease, sequence, created_at, timeout,
         result_ttl, correlation_id, error, retry, context, origin, payload)
    select id, queue, 'available', priority, now(), 0, max_attempts, lease, sequence + 1, created_at, timeout,
           result_ttl, correlation_id, error, retry, context, origin, payload
    from back
    on conflict (id) do nothing
    returning id, queue, sequence, correlation_id
), hurried as (
    update hammerwork.jobs set state = 'available', run_at = now(), sequence = sequence + 1
    where id = any($1::uuid[]) and state = 'scheduled'
    returning id, queue, sequence, correlation_id
), again as (
    select * from stored union all select * from hurried
), forgotten as (
    delete from hammerwork.results where job_id in (select id from stored)
), replayed as (
    update hammerwork.dead_letters set replayed_at = now(), replayed_as = job_id
    where job_id in (select id from stored) and replayed_at is null and discarded_at is null
), noted as (
    insert into hammerwork.events (job_id, sequence, type, queue, data)
    select id, sequence, 'job.retried', queue, jsonb_build_object('correlation_id', correlation_id)
    from again
    where queue not like 'sink.%' and hammerwork.event_wanted('job.retried')
)
select id, queue from again, pg_notify('hammerwork', 'queue ' || queue)
