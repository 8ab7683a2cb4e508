"""A worker on the queue `work`, until SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta

from hammerwork.core.execute.worker import Worker
from hammerwork.core.postgres.database import Database
from hammerwork.core.queue import Queue

from .work import work_handlers


async def main() -> None:
    lease = timedelta(seconds=float(os.environ["CHAOS_LEASE"]))
    async with Queue(database=Database(os.environ["CHAOS_DSN"], size=8)) as queue:
        worker = Worker(
            queue,
            work_handlers(queue.database),
            concurrency=int(os.environ["CHAOS_CONCURRENCY"]),
            lease=lease,
            drain=timedelta(seconds=5),
            upkeep=os.environ["CHAOS_UPKEEP"] == "1",
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
