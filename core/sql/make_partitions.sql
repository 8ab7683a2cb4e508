-- $1 days ahead integer
select hammerwork.make_partitions($1) as made
