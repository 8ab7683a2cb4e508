-- $1 sink text. As sink_position.sql, without its lock: for a relay that moves the position by move_sink.sql. `log`
-- names this log: a position in it says nothing of a log that was restored or promoted (its timeline is another).
-- `ahead`: the position is in the future, so it is of another server, whose data were restored on this one.
select position_xid::text as xid, position_id as id, types,
       position_xid > pg_snapshot_xmax(pg_current_snapshot()) as ahead,
       pg_snapshot_xmin(pg_current_snapshot())::text as horizon, set_config('enable_sort', 'off', true),
       (select id::text from hammerwork.deployment) as deployment,
       (select system_identifier from pg_control_system())::text || '.'
           || left(pg_walfile_name(pg_current_wal_lsn()), 8) as log
from hammerwork.sinks
where name = $1 and state = 'active'
