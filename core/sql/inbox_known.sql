-- $1 bridge text, $2 message ids text[]. What is known of these.
select message_id, job_id, body_sha256 from hammerwork.inbox
where bridge = $1 and message_id = any($2::text[])
