-- $1 job id uuid. Its unsuccessful attempts, oldest first.
select attempt, lease, worker, started_at, ended_at, cause, error, traceback
from hammerwork.attempts where job_id = $1 order by lease
