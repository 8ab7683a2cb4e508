-- How long until the next scheduled job is due; null when none is.
select greatest(min(run_at) - now(), interval '0') as wait from hammerwork.jobs where state = 'scheduled'
