"""Postgres as the queue uses it: connections, schema, statements, hints, duties."""
