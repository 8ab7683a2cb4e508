-- The bridges that gateways have registered.
select name, kind, seen_at, paused_at, pause_reason from hammerwork.bridges order by name
