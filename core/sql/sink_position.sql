-- $1 sink text. Where the sink is in the event log, what it wants, and the horizon: what commits from now on
-- has no smaller xid. Locks the row: of two relays of one sink, one advances at a time.
-- For the rest of the transaction no plan sorts: the log is then read in the order of its index, as far as the
-- limit, whatever the statistics say of a backlog (seen: a million events sorted for each five hundred).
-- `ahead`: the position is in the future, so it is of another server, whose data were restored on this one.
select position_xid::text as xid, position_id as id, types,
       position_xid > pg_snapshot_xmax(pg_current_snapshot()) as ahead,
       pg_snapshot_xmin(pg_current_snapshot())::text as horizon, set_config('enable_sort', 'off', true)
from hammerwork.sinks
where name = $1 and state = 'active' for no key update
