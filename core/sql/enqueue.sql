-- $1 ids uuid[], $2 queues text[], $3 payloads text[] (JSON), $4 priorities smallint[], $5 max_attempts integer[],
-- $6 timeouts interval[], $7 retries text[] (JSON), $8 result_ttls interval[], $9 correlation_ids text[],
-- $10 contexts text[] (JSON), $11 origins text[] (JSON), $12 run_ats timestamptz[], $13 delays interval[],
-- $14 queues to announce text[] (a hint for idle workers; sent when this transaction commits)
-- Returns the ids that are stored now; one that is missing existed already.
-- A microsecond a row keeps the order of the batch in run_at, by which jobs are claimed.
with stored as (
    insert into hammerwork.jobs
        (id, queue, payload, priority, state, run_at, max_attempts, timeout, retry, result_ttl,
         correlation_id, context, origin)
    select id, queue, payload::jsonb, priority,
           case when coalesce(run_at, now() + delay) > now() then 'scheduled' else 'available' end,
           coalesce(run_at, now() + coalesce(delay, interval '0') + ordinal * interval '1 microsecond'),
           max_attempts, timeout, retry::jsonb, result_ttl, correlation_id, context::jsonb, origin::jsonb
    from unnest($1::uuid[], $2::text[], $3::text[], $4::smallint[], $5::integer[], $6::interval[],
                $7::text[], $8::interval[], $9::text[], $10::text[], $11::text[], $12::timestamptz[],
                $13::interval[])
        with ordinality as given (id, queue, payload, priority, max_attempts, timeout, retry, result_ttl,
                                  correlation_id, context, origin, run_at, delay, ordinal)
    on conflict (id) do nothing
    returning id, queue, priority, run_at, correlation_id
), noted as (
    insert into hammerwork.events (job_id, sequence, type, queue, data)
    select id, 1, 'job.enqueued', queue,
           jsonb_build_object('priority', priority, 'run_at', run_at, 'correlation_id', correlation_id)
    from stored
    where queue not like 'sink.%' and (select hammerwork.event_wanted('job.enqueued'))
), announced as (
    select pg_notify('hammerwork', 'queue ' || name) from unnest($14::text[]) as name
)
select id from stored where (select count(*) from announced) is not null
