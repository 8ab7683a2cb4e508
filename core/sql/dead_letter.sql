-- $1 id uuid
select id, bridge, queue, job_id, message_id, reason, detail, body, body_size, body_sha256, content_type,
       headers::text, coordinates::text, message::text, attempts, created_at, replayed_at, replayed_as, discarded_at
from hammerwork.dead_letters where id = $1
