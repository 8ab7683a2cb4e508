-- $1 worker uuid, $2 ids uuid[], $3 leases bigint[]. Which of these this worker has finished already:
-- asked after a settle whose COMMIT was cut, where "not matched" may mean "done by the first try".
select history.id from hammerwork.history
join unnest($2::uuid[], $3::bigint[]) as mine (id, lease)
  on history.id = mine.id and history.lease = mine.lease
where history.claimed_by = $1
