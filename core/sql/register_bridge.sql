-- $1 name text, $2 kind text, $3 dedupe window interval
insert into hammerwork.bridges (name, kind, dedupe_window) values ($1, $2, $3)
on conflict (name) do update set kind = $2, dedupe_window = $3, seen_at = now()
