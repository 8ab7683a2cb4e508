-- $1 older than interval, $2 limit integer. Only those that were replayed or discarded.
delete from hammerwork.dead_letters where id in (
    select id from hammerwork.dead_letters
    where coalesce(replayed_at, discarded_at) < now() - $1::interval limit $2)
returning id
