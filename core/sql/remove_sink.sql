-- $1 name text. Not while a relay is at it: that one would go on without a position, skipping events.
delete from hammerwork.sinks
where name = $1
  and not exists (select from hammerwork.duties where duties.name = 'relay.' || $1 and until > now())
returning name
