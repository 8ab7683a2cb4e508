-- $1 name text, $2 holder uuid. The next holder need not wait.
update hammerwork.duties set until = now() where name = $1 and holder = $2
