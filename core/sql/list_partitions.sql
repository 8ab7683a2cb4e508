-- Every daily partition with the last moment it can hold, oldest first.
select parent.relname as parent, child.relname as name,
       (to_date(right(child.relname, 8), 'YYYYMMDD') + 1)::timestamp at time zone 'UTC' as ends_at
from pg_inherits
join pg_class parent on parent.oid = inhparent
join pg_class child on child.oid = inhrelid
where parent.relnamespace = 'hammerwork'::regnamespace and child.relname ~ '_[0-9]{8}$'
order by child.relname
