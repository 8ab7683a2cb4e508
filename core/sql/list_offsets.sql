-- $1 bridge text
select partition, next_offset, fence, moved_at from hammerwork.bridge_offsets where bridge = $1 order by partition
