-- $1 worker uuid; a row a job: $2 ids uuid[], $3 leases bigint[], $4 states text[] (cancelled, dead),
-- $5 causes text[] (failed, timed_out, lost or null), $6 errors text[], $7 tracebacks text[],
-- $8 seconds float8[] (how long the handler ran), $9 dead letter ids uuid[] (used where the state is dead)
-- Ends running jobs that did not succeed. Returns the ids that were not ours to finish, but somebody else's by
-- now. (The sub-selects and the CASE: as in complete.sql.)
with verdict as (
    select * from unnest((select $2::uuid[]), (select $3::bigint[]), (select $4::text[]), (select $5::text[]),
                         (select $6::text[]), (select $7::text[]), (select $8::float8[]), (select $9::uuid[]))
        as v (id, lease, final, cause, error, traceback, seconds, dead_letter_id)
), gone as (
    delete from hammerwork.jobs as job
    using verdict
    where job.id = verdict.id
      and case when job.state = 'running' then job.lease = verdict.lease and job.claimed_by = $1 end
    returning job.*, verdict.final, verdict.cause, verdict.error as why, verdict.traceback, verdict.seconds,
              verdict.dead_letter_id
), kept as (
    insert into hammerwork.history
        (id, queue, state, priority, run_at, attempt, max_attempts, lease, sequence, claimed_by, claimed_at,
         created_at, ran, timeout, result_ttl, correlation_id, error, retry, context, origin, payload)
    select id, queue, final, priority, run_at, attempt, max_attempts, lease,
           sequence + case when cause is null then 1 else 2 end, claimed_by, claimed_at,
           created_at, make_interval(secs => seconds), timeout, result_ttl, correlation_id, why, retry, context,
           origin, payload
    from gone
), tried as (
    insert into hammerwork.attempts (job_id, attempt, lease, worker, started_at, cause, error, traceback)
    select id, attempt, lease, claimed_by, claimed_at, cause, why, traceback from gone where cause is not null
), buried as (
    insert into hammerwork.dead_letters
        (id, queue, job_id, reason, detail, body, body_size, body_sha256, content_type, headers, attempts)
    select dead_letter_id, queue, id, coalesce(cause, 'gave_up'), coalesce(why, ''),
           bytes, length(bytes), sha256(bytes), 'application/json', coalesce(context -> 'headers', '{}'), attempt
    from gone, lateral (select convert_to(coalesce(payload::text, 'null'), 'UTF8') as bytes) as raw
    where final = 'dead'
), noted as (
    insert into hammerwork.events (job_id, sequence, type, queue, data)
    select id, sequence + change.step, change.type, queue,
           jsonb_build_object('attempt', attempt, 'correlation_id', correlation_id, 'error', why,
                              'ran_ms', round((seconds * 1000)::numeric, 3))
    from gone
    cross join lateral (values
        (1, case cause when 'timed_out' then 'job.timed_out' else 'job.failed' end, cause is not null),
        (case when cause is null then 1 else 2 end, 'job.' || final, true)
    ) as change (step, type, happened)
    where change.happened and queue not like 'sink.%'
      and change.type in (select unnest(types) from hammerwork.sinks)
    order by id, change.step
)
select id from verdict where id not in (select id from gone)
