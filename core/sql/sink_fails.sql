-- $1 sink text. It takes nothing since now, unless it was noted before.
update hammerwork.sinks set failing_since = now() where name = $1 and failing_since is null
