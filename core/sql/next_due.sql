-- How long until the next scheduled job is due, negative when one is; null when none is scheduled.
select min(run_at) - now() as wait from hammerwork.jobs where state = 'scheduled'
