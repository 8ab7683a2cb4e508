"""Filling queues, and emptying them with one worker whose handlers do nothing: the work of most rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hammerwork.core.execute.worker import Worker
from hammerwork.core.job import Job
from hammerwork.core.queue import Queue

from .payloads import SMALL, payloads

CONCURRENCY = 500
QUEUES = ("bench",)


async def fill(queue: Queue, jobs: int, *, size: int = SMALL, queues: Sequence[str] = QUEUES) -> None:
    """Enqueue `jobs` in bulk, the queues in turn."""
    given = payloads(jobs, size)
    names = itertools.cycle(queues)
    await queue.enqueue_many([Job(next(names), payload) for payload in given])


async def empty(queue: Queue, jobs: int, *, queues: Sequence[str] = QUEUES) -> None:
    """Run `jobs` jobs in this process with everything on: fenced, with history, durable, heartbeat and upkeep
    beside it. Returns when the worker has settled what it had claimed."""
    ended = itertools.count(1)

    async def handle(_job: object) -> None:
        if next(ended) == jobs:
            worker.stop()

    worker = Worker(queue, dict.fromkeys(queues, handle), concurrency=CONCURRENCY)
    await worker.run()
