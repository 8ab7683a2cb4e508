-- $1 bridge text, $2 partitions text[], $3 fences bigint[], $4 next offsets bigint[]. Where partitions that
-- nobody has read are begun; returns those that are still the owner's and had no offset.
update hammerwork.bridge_offsets as kept
set next_offset = given.next_offset, moved_at = now()
from unnest($2::text[], $3::bigint[], $4::bigint[]) as given (partition, fence, next_offset)
where kept.bridge = $1 and kept.partition = given.partition
  and kept.fence = given.fence and kept.next_offset is null
returning kept.partition
