-- $1 id uuid. The job as it is now, live or finished.
select id, queue, state, payload::text, priority, run_at, attempt, max_attempts, lease, correlation_id,
       context::text, origin::text, created_at, claimed_at, claimed_by, null::timestamptz as finished_at, error
from hammerwork.jobs where id = $1
union all
select id, queue, state, payload::text, priority, run_at, attempt, max_attempts, lease, correlation_id,
       context::text, origin::text, created_at, claimed_at, claimed_by, finished_at, error
from hammerwork.history where id = $1
