-- $1 limit integer. Rows that are older than their bridge's window; a bridge that is not known any more
-- keeps its rows for 30 days.
delete from hammerwork.inbox where ctid in (
    select inbox.ctid from hammerwork.inbox
    left join hammerwork.bridges on bridges.name = inbox.bridge
    where inbox.received_at < now() - coalesce(bridges.dedupe_window, interval '30 days')
    limit $1)
returning message_id
