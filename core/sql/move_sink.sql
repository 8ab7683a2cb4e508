-- $1 sink text, $2 from xid text, $3 from id bigint, $4 to xid text, $5 to id bigint. Moves a position that stands
-- where its relay thinks it does, or that this move has moved already (its COMMIT was cut). Returns nothing when
-- it stands elsewhere: somebody else relays, or the sink was removed.
update hammerwork.sinks set position_xid = $4::text::xid8, position_id = $5, failing_since = null
where name = $1 and (position_xid, position_id) in (($2::text::xid8, $3), ($4::text::xid8, $5))
returning name
