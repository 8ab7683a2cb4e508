-- $1 bridge text, $2 message ids text[], $3 job ids uuid[] (null for a dead letter), $4 sha256 bytea[]
-- Returns the message ids that are new. In sorted order, so that two gateways with the same messages
-- wait for one another instead of deadlocking.
insert into hammerwork.inbox (bridge, message_id, job_id, body_sha256)
select $1, message_id, job_id, body_sha256
from unnest($2::text[], $3::uuid[], $4::bytea[]) as given (message_id, job_id, body_sha256)
order by message_id
on conflict (bridge, message_id) do nothing
returning message_id
