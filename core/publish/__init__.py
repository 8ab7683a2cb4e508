"""The flow out: the event log becomes deliveries, in order, none skipped."""
