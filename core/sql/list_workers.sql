-- Every worker that is known, with the age of its heartbeat and what it holds.
select id, host, pid, queues, concurrency, lease, state, started_at, heartbeat_at,
       now() - heartbeat_at as silent, heartbeat_at + lease < now() as lost
from hammerwork.workers order by started_at
