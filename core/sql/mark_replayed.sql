-- $1 id uuid, $2 job id uuid. Guarded, so that of two replays at once one wins.
update hammerwork.dead_letters set replayed_at = now(), replayed_as = $2
where id = $1 and replayed_at is null and discarded_at is null returning id
