-- $1 worker uuid, $2 ids uuid[]. What this worker still holds of these, and whether it should stop.
select id, lease, cancel_reason from hammerwork.jobs
where id = any($2::uuid[]) and state = 'running' and claimed_by = $1
