"""One room a destination of events."""
