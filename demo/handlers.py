"""What the demo's workers run: each order is booked exactly once, in the transaction that completes it."""

from __future__ import annotations

import asyncio

from hammerwork.core.execute.handlers import Handlers
from hammerwork.core.execute.running import RunningJob

handlers = Handlers()


@handlers.queue("orders")
async def book(job: RunningJob) -> None:
    """Pretend to work, then book the order; a killed worker's half of it is rolled back."""
    await asyncio.sleep(0.01)
    async with job.transaction() as connection:
        await connection.execute(
            "insert into bookings (job_id, order_number) values ($1, $2)", job.id, job.payload["order"]
        )
        job.result = {"booked": job.payload["order"]}
