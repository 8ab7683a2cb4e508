-- One row a queue: live jobs by state, the age of the oldest that waits, and whether it is paused.
select coalesce(live.queue, queues.name) as queue,
       coalesce(live.available, 0) as available, coalesce(live.scheduled, 0) as scheduled,
       coalesce(live.blocked, 0) as blocked, coalesce(live.running, 0) as running,
       live.oldest, queues.paused_at, queues.pause_reason
from (
    select queue,
           count(*) filter (where state = 'available') as available,
           count(*) filter (where state = 'scheduled') as scheduled,
           count(*) filter (where state = 'blocked') as blocked,
           count(*) filter (where state = 'running') as running,
           now() - min(run_at) filter (where state = 'available') as oldest
    from hammerwork.jobs group by queue
) as live
full join hammerwork.queues on queues.name = live.queue
order by 1
