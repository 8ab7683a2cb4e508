-- $1 sink text, $2 failed only boolean, $3 limit integer. Newest first.
select sink, job_id, event_id, attempt, status, error, ran, response, outcome, at
from hammerwork.deliveries
where sink = $1 and (not $2 or outcome <> 'done')
order by at desc limit $3
