-- $1 sink text, $2 job id uuid, $3 event id text, $4 attempt integer, $5 status integer, $6 error text,
-- $7 ran interval, $8 response text, $9 outcome text. Notes since when nothing has been delivered; returns
-- for how long that is (null: the last delivery succeeded).
with logged as (
    insert into hammerwork.deliveries (sink, job_id, event_id, attempt, status, error, ran, response, outcome)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
), changed as (
    update hammerwork.sinks
    set failing_since = case when $9 <> 'done' then now() end
    where name = $1 and (failing_since is null) = ($9 <> 'done')
)
select now() - failing_since as failing from hammerwork.sinks where name = $1 and $9 <> 'done'
