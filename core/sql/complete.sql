-- $1 worker uuid; a row a job: $2 ids uuid[], $3 leases bigint[], $4 seconds float8[] (how long the handler
-- ran), $5 results text[] (JSON; null where there is none, as a whole or one by one)
-- What finish.sql does, for the end that nearly all jobs have. Returns the ids that were not ours to complete:
-- usually none, where the others would be a row each to send and to read.
-- The arrays stand in sub-selects and the fence in a CASE so that the planner takes them for few and the fence
-- for likely: it would read the whole table for each batch, or once a job, instead of the primary key.
with verdict as (
    select * from unnest((select $2::uuid[]), (select $3::bigint[]), (select $4::float8[]), (select $5::text[]))
        as v (id, lease, seconds, result)
), gone as (
    delete from hammerwork.jobs as job
    using verdict
    where job.id = verdict.id
      and case when job.state = 'running' then job.lease = verdict.lease and job.claimed_by = $1 end
    returning job.*, verdict.seconds, verdict.result
), kept as (
    insert into hammerwork.history
        (id, queue, state, priority, run_at, attempt, max_attempts, lease, sequence, claimed_by, claimed_at,
         created_at, ran, has_result, timeout, result_ttl, correlation_id, retry, context, origin, payload)
    select id, queue, 'completed', priority, run_at, attempt, max_attempts, lease, sequence + 1, claimed_by,
           claimed_at, created_at, make_interval(secs => seconds), result is not null, timeout, result_ttl,
           correlation_id, retry, context, origin, payload
    from gone
), answered as (
    insert into hammerwork.results (job_id, value, expires_at)
    select id, result::jsonb, now() + result_ttl from gone where result is not null
    on conflict (job_id) do update set value = excluded.value, expires_at = excluded.expires_at
), noted as (
    insert into hammerwork.events (job_id, sequence, type, queue, data)
    select id, sequence + 1, 'job.completed', queue,
           jsonb_build_object('attempt', attempt, 'correlation_id', correlation_id, 'error', null,
                              'ran_ms', round((seconds * 1000)::numeric, 3))
    from gone
    where (select hammerwork.event_wanted('job.completed')) and queue not like 'sink.%'
)
select id from verdict where id not in (select id from gone)
