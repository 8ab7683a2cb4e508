-- $1 ids uuid[]. The rows stay for the retention time; they are only out of the list. Returns ids.
update hammerwork.dead_letters set discarded_at = now()
where id = any($1::uuid[]) and replayed_at is null and discarded_at is null returning id
