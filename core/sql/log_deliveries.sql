-- $1 sink text; a row a try, in the order in which they ended: $2 job ids uuid[], $3 event ids text[],
-- $4 attempts integer[], $5 statuses integer[], $6 errors text[], $7 seconds double precision[],
-- $8 responses text[], $9 outcomes text[]. Notes since when nothing has been taken; returns for how long that
-- was so before (null: not at all, or one of these was taken).
-- The commit does not wait for the disk: the settle that follows it does, and carries it there.
with unhurried as materialized (
    select set_config('synchronous_commit', 'off', true)
), logged as (
    insert into hammerwork.deliveries
        (sink, job_id, event_id, attempt, status, error, ran, response, outcome, at)
    select $1, job_id, event_id, attempt, status, error, make_interval(secs => seconds), response, outcome,
           now() + ordinal * interval '1 microsecond'
    from unnest($2::uuid[], $3::text[], $4::integer[], $5::integer[], $6::text[], $7::double precision[],
                $8::text[], $9::text[])
        with ordinality as given (job_id, event_id, attempt, status, error, seconds, response, outcome, ordinal)
), changed as (
    update hammerwork.sinks
    set failing_since = case when $9[cardinality($9)] <> 'done' then now() end
    where name = $1
      and case when $9[cardinality($9)] = 'done' then failing_since is not null
               when 'done' = any($9) then true
               else failing_since is null end
)
select now() - failing_since as failing
from unhurried
left join hammerwork.sinks on name = $1 and not 'done' = any($9)
