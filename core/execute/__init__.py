"""The flow through: jobs are claimed, run, and settled under a lease."""
