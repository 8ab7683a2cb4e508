"""Kafka from below: where a cluster is, how we log in, and how a client starts and ends."""
