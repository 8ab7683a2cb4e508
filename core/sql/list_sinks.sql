-- Every sink with its state, how far behind its position is, and the age of the oldest event ahead of it.
select name, kind, types, state, reason, position_xid::text as position_xid, position_id, failing_since,
       registered_at, ahead.behind, ahead.lag
from hammerwork.sinks
cross join lateral (
    select count(*) as behind, now() - min(at) as lag
    from (select at from hammerwork.events e
          where (e.xid, e.id) > (sinks.position_xid, sinks.position_id)
            and e.type = any(sinks.types) and (e.sink is null or e.sink = sinks.name)
          order by e.xid, e.id limit 10001) as found
) as ahead
order by name
