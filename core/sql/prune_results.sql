-- $1 limit integer
delete from hammerwork.results where job_id in
    (select job_id from hammerwork.results where expires_at < now() order by expires_at limit $1)
returning job_id
