-- $1 sink text, $2 xid text, $3 id bigint. Never back.
update hammerwork.sinks set position_xid = $2::text::xid8, position_id = $3
where name = $1 and (position_xid, position_id) < ($2::text::xid8, $3)
