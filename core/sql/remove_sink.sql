-- $1 name text
delete from hammerwork.sinks where name = $1 returning name
