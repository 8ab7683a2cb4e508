-- Every sink with its state and how far behind its position is.
select name, kind, types, state, reason, position_xid::text as position_xid, position_id, failing_since,
       registered_at,
       (select count(*) from (select from hammerwork.events e
                              where (e.xid, e.id) > (sinks.position_xid, sinks.position_id)
                                and e.type = any(sinks.types) limit 10001) as ahead) as behind
from hammerwork.sinks order by name
