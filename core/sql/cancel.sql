-- $1 ids uuid[], $2 reason text. A waiting job is cancelled at once; a running one is asked to stop,
-- and its worker hears of it when this commits. Returns id, queue and the state the job was in.
with target as materialized (
    select id, state from hammerwork.jobs where id = any($1::uuid[]) order by id for update
), gone as (
    delete from hammerwork.jobs as job using target
    where job.id = target.id and target.state <> 'running'
    returning job.*
), kept as (
    insert into hammerwork.history
        (id, queue, state, priority, run_at, attempt, max_attempts, lease, sequence, created_at, timeout,
         result_ttl, correlation_id, error, retry, context, origin, payload)
    select id, queue, 'cancelled', priority, run_at, attempt, max_attempts, lease, sequence + 1, created_at,
           timeout, result_ttl, correlation_id, $2, retry, context, origin, payload
    from gone
), asked as (
    update hammerwork.jobs as job set cancel_reason = $2
    from target
    where job.id = target.id and target.state = 'running'
    returning job.id, job.queue
), noted as (
    insert into hammerwork.events (job_id, sequence, type, queue, data)
    select id, sequence + 1, 'job.cancelled', queue,
           jsonb_build_object('attempt', attempt, 'correlation_id', correlation_id, 'error', $2::text)
    from gone
    where queue not like 'sink.%' and hammerwork.event_wanted('job.cancelled')
)
select id, queue, state from gone
union all
select id, queue, 'running' from asked, pg_notify('hammerwork', 'cancel ' || id)
