-- $1 queue text. Returns it when it was paused.
update hammerwork.queues set paused_at = null, pause_reason = null
where name = $1 and paused_at is not null returning name
