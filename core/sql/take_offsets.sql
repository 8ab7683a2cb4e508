-- $1 bridge text, $2 partitions text[]. A new owner: the fence rises, so no batch of the owner before commits
-- any more; one that is committing now is waited for. In sorted order, so that two owners cannot deadlock.
insert into hammerwork.bridge_offsets (bridge, partition)
select $1, partition from unnest($2::text[]) as given (partition) order by partition
on conflict (bridge, partition) do update set fence = bridge_offsets.fence + 1
returning partition, next_offset, fence
