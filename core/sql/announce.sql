-- $1 payloads text[]
select pg_notify('hammerwork', payload) from unnest($1::text[]) as payload
