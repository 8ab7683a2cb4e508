-- $1 sink text, $2 event id uuid, $3 job id uuid, $4 sequence integer, $5 type text, $6 queue text, $7 data text
-- (JSON), $8 at timestamptz. An event of a dead letter, logged once more for the sink that refused it.
insert into hammerwork.events (sink, event_id, job_id, sequence, type, queue, data, at)
values ($1, $2, $3, $4, $5, $6, $7::jsonb, $8)
