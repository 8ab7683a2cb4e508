-- $1 bridge text, $2 partition text, $3 offset bigint. Where a partition of a paused bridge goes on; the fence
-- rises, so that its owner commits nothing more of it before it has taken it anew. Returns the offset before.
with kept as (
    select partition, next_offset from hammerwork.bridge_offsets
    where bridge = $1 and partition = $2
      and exists (select from hammerwork.bridges where name = $1 and paused_at is not null)
    for update
)
update hammerwork.bridge_offsets as moved
set next_offset = $3, fence = moved.fence + 1, moved_at = now()
from kept where moved.bridge = $1 and moved.partition = kept.partition
returning kept.next_offset as before
