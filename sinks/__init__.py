"""One file a destination of events."""
