-- $1 xid text, $2 id bigint. Whether the event log goes on behind this place: a look at the end of its index, which
-- locks nothing and needs no transaction of several statements.
select coalesce((select (xid, id) > ($1::text::xid8, $2) from hammerwork.events order by xid desc, id desc limit 1),
                false) as grown
