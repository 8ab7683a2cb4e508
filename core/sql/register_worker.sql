-- $1 id uuid, $2 host text, $3 pid integer, $4 queues text[], $5 concurrency integer, $6 lease interval
insert into hammerwork.workers (id, host, pid, queues, concurrency, lease, state)
values ($1, $2, $3, $4, $5, $6, 'running')
