"""What pg_restore leaves behind: transaction numbers of the server that was dumped, ahead of this one's."""

AS_RESTORED = "update hammerwork.sinks set position_xid = '4000000000'"
