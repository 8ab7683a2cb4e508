-- $1 worker uuid; a row a job: $2 ids uuid[], $3 leases bigint[], $4 kinds text[] (retried, snoozed,
-- released), $5 causes text[] (failed, timed_out, lost or null), $6 errors text[], $7 tracebacks text[],
-- $8 delays interval[]
-- Gives running jobs back to their queue. Snoozed and released burn no attempt; the lease stays, so a
-- lower attempt number weakens no fence. A job whose cancellation was asked for is left: finish it.
-- Returns the ids that were ours to give back. (The sub-selects and the CASE: as in complete.sql.)
with verdict as (
    select * from unnest((select $2::uuid[]), (select $3::bigint[]), (select $4::text[]), (select $5::text[]),
                         (select $6::text[]), (select $7::text[]), (select $8::interval[]))
        as v (id, lease, kind, cause, error, traceback, delay)
), ours as (
    select job.id, job.attempt, job.claimed_at, verdict.kind, verdict.cause, verdict.error,
           verdict.traceback, verdict.delay
    from hammerwork.jobs as job
    join verdict on job.id = verdict.id
    where case when job.state = 'running'
          then job.lease = verdict.lease and job.claimed_by = $1 and job.cancel_reason is null end
    order by job.id
    for no key update of job
), back as (
    update hammerwork.jobs as job
    set state = case when ours.delay > interval '0' then 'scheduled' else 'available' end,
        run_at = case ours.kind when 'released' then job.run_at else now() + ours.delay end,
        attempt = job.attempt - case ours.kind when 'retried' then 0 else 1 end,
        sequence = job.sequence + case when ours.cause is null then 1 else 2 end,
        error = coalesce(ours.error, job.error),
        claimed_by = null, claimed_at = null
    from ours
    where job.id = ours.id
    returning job.id, job.queue, job.lease, job.sequence, job.run_at, job.correlation_id, ours.attempt,
              ours.kind, ours.cause, ours.error as why, ours.traceback, ours.claimed_at as started_at
), tried as (
    insert into hammerwork.attempts (job_id, attempt, lease, worker, started_at, cause, error, traceback)
    select id, attempt, lease, $1, started_at, cause, why, traceback from back where cause is not null
), noted as (
    insert into hammerwork.events (job_id, sequence, type, queue, data)
    select id, sequence - change.before, change.type, queue,
           jsonb_build_object('attempt', attempt, 'correlation_id', correlation_id, 'error', why,
                              'run_at', run_at)
    from back
    cross join lateral (values
        (1, case cause when 'timed_out' then 'job.timed_out' else 'job.failed' end, cause is not null),
        (0, 'job.' || kind, kind <> 'released')
    ) as change (before, type, happened)
    where change.happened and queue not like 'sink.%'
      and change.type in (select unnest(types) from hammerwork.sinks)
    order by id, change.before desc
)
select id, queue, kind from back
