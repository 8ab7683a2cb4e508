-- $1 worker uuid. A worker that still holds jobs stays, so that they are rescued when its lease is over.
delete from hammerwork.workers
where id = $1
  and not exists (select from hammerwork.jobs where state = 'running' and claimed_by = $1)
returning id
