-- $1 worker uuid, $2 limit integer. What it was running, in the order of the rescue.
select id, queue, lease, attempt, max_attempts, cancel_reason from hammerwork.jobs
where state = 'running' and claimed_by = $1
order by id limit $2
for no key update
