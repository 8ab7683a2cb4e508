-- $1 queue text or null, $2 state text or null, $3 correlation id text or null, $4 before id uuid or null,
-- $5 limit integer. Newest first by id; the page after goes on below the last id.
select * from (
    (select id, queue, state, payload::text, priority, run_at, attempt, max_attempts, lease, correlation_id,
            context::text, origin::text, created_at, claimed_at, claimed_by, null::timestamptz as finished_at, error
     from hammerwork.jobs
     where ($1::text is null or queue = $1) and ($2::text is null or state = $2)
       and ($3::text is null or correlation_id = $3) and ($4::uuid is null or id < $4)
     order by id desc limit $5)
    union all
    (select id, queue, state, payload::text, priority, run_at, attempt, max_attempts, lease, correlation_id,
            context::text, origin::text, created_at, claimed_at, claimed_by, finished_at, error
     from hammerwork.history
     where ($1::text is null or queue = $1) and ($2::text is null or state = $2)
       and ($3::text is null or correlation_id = $3) and ($4::uuid is null or id < $4)
     order by id desc limit $5)
) as page
order by id desc limit $5
