-- $1 sink text. Locks the row: of two relays of one sink, one advances at a time.
select position_xid::text as xid, position_id as id from hammerwork.sinks
where name = $1 and state = 'active' for no key update
