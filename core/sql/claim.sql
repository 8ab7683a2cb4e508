-- A row a queue and priority: $1 queues text[], $2 priorities smallint[], $3 floors timestamptz[] (look at no
-- run_at before; null: at all), $4 limits integer[], $5 limits of the queue over its priorities integer[];
-- $6 limit over all integer, $7 worker uuid
-- Claims the most urgent available jobs of the queues that are not paused. The token of a claim is
-- (id, lease, claimed_by); a row locked by somebody else is skipped.
-- A claim that the network delivers when its worker has been given up finds no row of it and takes nothing.
-- The ids are an array because the planner would join so many rows by reading the whole table. The parameters
-- stand in sub-selects because it would else make a plan for their values at every claim, which takes twice the
-- time of one that finds nothing.
with wanted as materialized (
    select *
    from unnest((select $1::text[]), (select $2::smallint[]), (select $3::timestamptz[]),
                (select $4::integer[]), (select $5::integer[]))
        as w (queue, priority, floor, slots, most)
    where not exists (select from hammerwork.queues q where q.name = w.queue and q.paused_at is not null)
      and exists (select from hammerwork.workers where id = $7)
), picked as materialized (
    select id
    from (
        select candidate.*, wanted.most,
               row_number() over (partition by wanted.queue
                                  order by candidate.priority desc, candidate.run_at, candidate.id) as place
        from wanted
        cross join lateral (
            select id, priority, run_at
            from hammerwork.jobs
            where state = 'available' and queue = wanted.queue and priority = wanted.priority
              and run_at >= coalesce(wanted.floor, '-infinity')
            order by run_at, id
            limit wanted.slots
            for no key update skip locked
        ) as candidate
    ) as candidates
    where place <= most
    order by priority desc, run_at, id
    limit (select $6::integer)
), claimed as (
    update hammerwork.jobs as job
    set state = 'running', lease = lease + 1, attempt = attempt + 1, sequence = sequence + 1,
        claimed_by = $7, claimed_at = now()
    where job.id = any(array(select id from picked))
    returning job.id, job.queue, job.payload, job.priority, job.run_at, job.attempt, job.max_attempts,
              job.lease, job.sequence, job.timeout, job.retry, job.correlation_id, job.context, job.origin,
              job.created_at
), noted as (
    insert into hammerwork.events (job_id, sequence, type, queue, data)
    select id, sequence, 'job.started', queue,
           jsonb_build_object('attempt', attempt, 'worker', $7::text, 'correlation_id', correlation_id)
    from claimed
    where (select hammerwork.event_wanted('job.started')) and queue not like 'sink.%'
)
select id, queue, payload::text, priority, run_at, attempt, max_attempts, lease, timeout, retry::text,
       correlation_id, context::text, origin::text, created_at
from claimed
order by priority desc, run_at, id
