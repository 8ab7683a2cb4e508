-- $1 bridge text or null, $2 queue text or null, $3 reason text or null, $4 before id uuid or null,
-- $5 limit integer, $6 all boolean (also those that were replayed or discarded). Newest first.
select id, bridge, queue, job_id, message_id, reason, detail, body_size, attempts, created_at, replayed_at,
       replayed_as, discarded_at
from hammerwork.dead_letters
where ($1::text is null or bridge = $1) and ($2::text is null or queue = $2)
  and ($3::text is null or reason = $3) and ($4::uuid is null or id < $4)
  and ($6 or (replayed_at is null and discarded_at is null))
order by id desc limit $5
