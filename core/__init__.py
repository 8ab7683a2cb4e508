"""The queue: jobs, messages, events, intake, workers, relay and upkeep; it knows no broker and no HTTP."""
