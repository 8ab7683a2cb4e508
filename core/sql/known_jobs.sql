-- $1 ids uuid[]. Returns those that exist, live or finished: asked before ids are sent a second time.
select id from hammerwork.jobs where id = any($1::uuid[])
union all
select id from hammerwork.history where id = any($1::uuid[])
