-- $1 bridge text, $2 partitions text[], $3 fences bigint[], $4 next offsets bigint[]. Where partitions go on
-- from now on: those that nobody has read, and those whose owner found that something else is there. Returns
-- those that are still the owner's.
update hammerwork.bridge_offsets as kept
set next_offset = given.next_offset, moved_at = now()
from unnest($2::text[], $3::bigint[], $4::bigint[]) as given (partition, fence, next_offset)
where kept.bridge = $1 and kept.partition = given.partition and kept.fence = given.fence
returning kept.partition
