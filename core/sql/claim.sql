-- $1 queues text[], $2 limits integer[] (one a queue), $3 limit over all integer, $4 worker uuid
-- Claims the most urgent available jobs of the queues that are not paused. The token of a claim is
-- (id, lease, claimed_by); a row locked by somebody else is skipped.
-- A claim that the network delivers when its worker has been given up finds no row of it and takes nothing.
with picked as materialized (
    select candidate.id
    from unnest($1::text[], $2::integer[]) as wanted (queue, slots)
    cross join lateral (
        select id, priority, run_at
        from hammerwork.jobs
        where queue = wanted.queue and state = 'available'
        order by priority desc, run_at, id
        limit wanted.slots
        for no key update skip locked
    ) as candidate
    where not exists (select from hammerwork.queues q where q.name = wanted.queue and q.paused_at is not null)
      and exists (select from hammerwork.workers where id = $4)
    order by candidate.priority desc, candidate.run_at, candidate.id
    limit $3
), claimed as (
    update hammerwork.jobs as job
    set state = 'running', lease = lease + 1, attempt = attempt + 1, sequence = sequence + 1,
        claimed_by = $4, claimed_at = now()
    from picked
    where job.id = picked.id
    returning job.id, job.queue, job.payload, job.priority, job.run_at, job.attempt, job.max_attempts,
              job.lease, job.sequence, job.timeout, job.retry, job.correlation_id, job.context, job.origin,
              job.created_at, job.claimed_at
), noted as (
    insert into hammerwork.events (job_id, sequence, type, queue, data)
    select id, sequence, 'job.started', queue,
           jsonb_build_object('attempt', attempt, 'worker', $4::text, 'correlation_id', correlation_id)
    from claimed
    where queue not like 'sink.%' and (select hammerwork.event_wanted('job.started'))
)
select id, queue, payload::text, priority, run_at, attempt, max_attempts, lease, timeout, retry::text,
       correlation_id, context::text, origin::text, created_at, claimed_at
from claimed
order by priority desc, run_at, id
