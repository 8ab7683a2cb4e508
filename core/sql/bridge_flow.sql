-- $1 bridge text, $2 queues text[], $3 how far to count integer. Whether the bridge is paused, and of the queues
-- of its jobs how many jobs wait (counted no further than asked) and for how long the oldest has been due.
select paused_at is not null as paused, coalesce(pause_reason, '') as reason,
       (select count(*) from (select from hammerwork.jobs
                              where queue = any(array(select unnest($2::text[]))) and state = 'available'
                              limit $3) as counted) as depth,
       (select extract(epoch from now() - min(oldest.run_at))::float
        from unnest($2::text[]) as named (queue),
             generate_series(0, 4) as level (priority),
             lateral (select run_at from hammerwork.jobs as job
                      where job.queue = named.queue and job.state = 'available'
                        and job.priority = level.priority
                      order by job.run_at limit 1) as oldest
        where $3 > 0) as age
from hammerwork.bridges where name = $1
