-- $1 bridge text, $2 keys text[]. Returns the jobs that were the latest of these keys.
delete from hammerwork.bridge_keys where bridge = $1 and key = any($2::text[])
returning job_id
