"""Kafka from below: where a cluster is, how we log in, and why a client could not connect."""
