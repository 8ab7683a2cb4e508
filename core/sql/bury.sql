-- A row a message: $1 ids uuid[], $2 bridge text, $3 message ids text[], $4 reasons text[], $5 details text[],
-- $6 bodies bytea[], $7 sizes bigint[], $8 sha256 bytea[], $9 content types text[], $10 headers text[] (JSON),
-- $11 coordinates text[] (JSON), $12 messages text[] (JSON) (what else the message carried), $13 attempts integer[]
with buried as (
    insert into hammerwork.dead_letters
        (id, bridge, message_id, reason, detail, body, body_size, body_sha256, content_type, headers,
         coordinates, message, attempts)
    select id, $2, message_id, reason, detail, body, size, sha, content_type, headers::jsonb,
           coordinates::jsonb, message::jsonb, attempts
    from unnest($1::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::bigint[], $8::bytea[],
                $9::text[], $10::text[], $11::text[], $12::text[], $13::integer[])
        as given (id, message_id, reason, detail, body, size, sha, content_type, headers, coordinates,
                  message, attempts)
    on conflict (id) do nothing
    returning id, reason, message_id
)
insert into hammerwork.events (type, data)
select 'message.dead_lettered',
       jsonb_build_object('dead_letter_id', id, 'bridge', $2::text, 'reason', reason, 'message_id', message_id)
from buried where (select hammerwork.event_wanted('message.dead_lettered'))
