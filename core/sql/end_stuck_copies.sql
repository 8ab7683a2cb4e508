-- $1 longest interval. Ends the sessions in which a COPY of ours has waited so long for its client, which has stopped in
-- its tracks: Postgres knows no time limit there, and its open transaction would hold back every reader of the event
-- log. (The text is as the driver writes it; a COPY of somebody else's, a restore for one, is written otherwise.)
select pg_terminate_backend(pid) as ended, pid
from pg_stat_activity
where datname = current_database() and state = 'active' and wait_event = 'ClientRead'
  and query like 'COPY "hammerwork"."%' and query_start < now() - $1::interval and pg_has_role(usesysid, 'usage')
