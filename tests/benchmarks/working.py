"""Filling queues, emptying them with a worker whose handlers do nothing, and being in the way meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

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


@asynccontextmanager
async def snapshot(dsn: str) -> AsyncIterator[None]:
    """A transaction with a snapshot and an id, open until the block ends: nothing newer can be vacuumed."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetchval("select pg_current_xact_id()")
            yield
    finally:
        await connection.close()
