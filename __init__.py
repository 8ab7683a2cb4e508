"""Hammerwork: messages in, Postgres jobs, events out; this face hands on the names that applications use."""
