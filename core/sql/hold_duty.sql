-- $1 name text, $2 holder uuid, $3 for interval. Takes a free or expired duty, or prolongs our own.
-- Returns the epoch when it is ours. Judged by the database's clock only.
insert into hammerwork.duties (name, holder, until) values ($1, $2, now() + $3)
on conflict (name) do update
set holder = $2, until = now() + $3,
    epoch = duties.epoch + case when duties.holder = $2 then 0 else 1 end
where duties.holder = $2 or duties.until < now()
returning epoch
