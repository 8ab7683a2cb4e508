-- $1 name text, $2 kind text, $3 types text[]. A new sink begins with what commits from now on; a known
-- one keeps its position and its state.
insert into hammerwork.sinks (name, kind, types) values ($1, $2, $3)
on conflict (name) do update set kind = $2, types = $3
