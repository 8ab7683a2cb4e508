-- $1 bridge text, $2 keys text[], $3 job ids uuid[]. The latest job of each key, in sorted order.
insert into hammerwork.bridge_keys (bridge, key, job_id)
select $1, key, job_id from unnest($2::text[], $3::uuid[]) as given (key, job_id) order by key
on conflict (bridge, key) do update set job_id = excluded.job_id
