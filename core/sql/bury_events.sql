-- A row an event that a sink will never take: $1 ids uuid[], $2 queue text, $3 event ids text[], $4 reasons text[],
-- $5 details text[], $6 bodies bytea[], $7 coordinates text[] (JSON), $8 attempts integer[]. An id says which place
-- in the log it was, so one that is buried again after a crash stays one.
insert into hammerwork.dead_letters
    (id, queue, message_id, reason, detail, body, body_size, body_sha256, content_type, coordinates, attempts)
select id, $2, event_id, reason, detail, body, length(body), sha256(body), 'application/cloudevents+json',
       coordinates::jsonb, attempts
from unnest($1::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::integer[])
    as given (id, event_id, reason, detail, body, coordinates, attempts)
on conflict (id) do nothing
