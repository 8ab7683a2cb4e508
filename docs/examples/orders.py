"""The worker of compose.yaml: `hammerwork worker run orders:handlers` runs the jobs of the queue `orders`."""

from __future__ import annotations

from datetime import timedelta

from hammerwork import Dead, Done, Exponential, Handlers, RunningJob

handlers = Handlers()


@handlers.queue("orders", retry=Exponential(), timeout=timedelta(minutes=1))
async def ship(job: RunningJob) -> Done | Dead:
    """Ship an order. An exception would be tried again; an order without a number never gets better."""
    match job.payload:
        case {"order": int() as order}:
            return Done({"shipped": order})
        case _:
            return Dead("an order needs a number")
