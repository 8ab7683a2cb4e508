-- $1 bridge text, $2 partitions text[], $3 fences bigint[], $4 from bigint[], $5 to bigint[]. Returns the
-- partitions that were still the owner's and stood where it thought they do. Rows are locked in sorted order.
with mine as (
    select kept.partition, given.next_offset
    from hammerwork.bridge_offsets as kept
    join unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
        as given (partition, fence, expected, next_offset)
      on kept.partition = given.partition and kept.fence = given.fence and kept.next_offset = given.expected
    where kept.bridge = $1
    order by kept.partition
    for no key update of kept
)
update hammerwork.bridge_offsets as kept
set next_offset = mine.next_offset, moved_at = now()
from mine where kept.bridge = $1 and kept.partition = mine.partition
returning kept.partition
