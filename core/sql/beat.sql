-- $1 worker uuid, $2 state text. No row back: this life is over, its jobs belong to others.
update hammerwork.workers set heartbeat_at = now(), state = $2 where id = $1 returning id
