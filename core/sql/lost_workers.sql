-- Workers whose lease is over. Locked, so that one that comes back waits and then finds its row gone.
-- After a restart of the server every heartbeat is old, so everybody gets one lease's time to beat again.
select id from hammerwork.workers
where heartbeat_at + lease < now() and pg_postmaster_start_time() + lease < now()
order by id for update skip locked
