-- $1 sink text, $2 xid text, $3 id bigint
update hammerwork.sinks set position_xid = $2::text::xid8, position_id = $3 where name = $1
