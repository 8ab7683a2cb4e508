-- $1 limit integer. Scheduled jobs that are due become available. Returns how many of which queue.
with due as (
    select id from hammerwork.jobs
    where state = 'scheduled' and run_at <= now()
    order by run_at limit $1
    for no key update skip locked
), promoted as (
    update hammerwork.jobs as job set state = 'available' from due where job.id = due.id
    returning job.queue
)
select queue, count(*) as jobs from promoted group by queue
