-- No parameters. Workers that are not registered and yet hold jobs: their claim was under way while they
-- were unregistered. No index helps, so this is asked once a minute at most, not with every rescue.
select distinct claimed_by from hammerwork.jobs
where state = 'running' and not exists (select from hammerwork.workers where workers.id = jobs.claimed_by)
