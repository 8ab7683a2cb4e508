"""The worker under a steady load: tells at every line of input how its jobs fared since the line before."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from statistics import quantiles

import uvloop

from hammerwork.core.execute.running import RunningJob
from hammerwork.core.execute.worker import Worker
from hammerwork.core.queue import Queue


async def main(dsn: str) -> None:
    """Work until SIGTERM."""
    latencies: list[float] = []
    since = time.monotonic()

    async def handle(job: RunningJob) -> None:
        # The clock is the machine's, so it is the sender's too.
        latencies.append(time.monotonic() - job.payload["sent"])

    def tell() -> None:
        nonlocal since
        sys.stdin.readline()
        now = time.monotonic()
        cuts = quantiles(latencies, n=100, method="inclusive") if len(latencies) > 1 else [0.0] * 99
        print(
            json.dumps(
                {
                    "jobs/s": len(latencies) / (now - since),
                    "p50 ms": cuts[49] * 1000,
                    "p99 ms": cuts[98] * 1000,
                }
            ),
            flush=True,
        )
        latencies.clear()
        since = now

    async with Queue(dsn) as queue:
        worker = Worker(queue, {"bench": handle}, concurrency=100)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, worker.stop)
        loop.add_reader(sys.stdin, tell)
        await worker.run()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
