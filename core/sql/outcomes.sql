-- $1 ids uuid[]. Those that are finished, with their result while it is kept. A job that had a result
-- which is gone again is told from one that had none by has_result.
select history.id, history.state, history.error, results.value::text as result,
       history.has_result and results.job_id is null as expired
from hammerwork.history left join hammerwork.results on results.job_id = history.id
where history.id = any($1::uuid[])
