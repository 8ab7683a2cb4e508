-- $1 queue text, $2 reason text
insert into hammerwork.queues (name, paused_at, pause_reason) values ($1, now(), $2)
on conflict (name) do update set paused_at = coalesce(queues.paused_at, now()), pause_reason = $2
