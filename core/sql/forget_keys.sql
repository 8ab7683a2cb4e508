-- $1 bridge text, $2 keys text[]. Returns them with the jobs that were their latest.
delete from hammerwork.bridge_keys where bridge = $1 and key = any($2::text[])
returning key, job_id
