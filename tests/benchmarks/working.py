"""Filling queues, emptying them with a worker whose handlers do nothing, and being in the way meanwhile."""

from __future__ import annotations

import asyncio
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
SETTLED = "select count(*) from hammerwork.history"


async def fill(queue: Queue, jobs: int, *, size: int = SMALL, queues: Sequence[str] = QUEUES) -> None:
    """Enqueue `jobs` in bulk, the queues in turn."""
    given = payloads(jobs, size)
    names = itertools.cycle(queues)
    await queue.enqueue_many([Job(next(names), payload) for payload in given])


async def empty(
    queue: Queue, jobs: int, tasks: asyncio.TaskGroup, *, queues: Sequence[str] = QUEUES
) -> Worker:
    """Run `jobs` jobs in this process with everything on: fenced, with history, durable, heartbeat and upkeep
    beside it. Returns the worker, which is still to be stopped, when the last of them is settled."""
    worker = Worker(queue, dict.fromkeys(queues, _nothing), concurrency=CONCURRENCY)
    tasks.create_task(worker.run(), name="worker")
    await settled(queue, worker, jobs)
    return worker


async def settled(queue: Queue, worker: Worker, jobs: int) -> None:
    """Wait until this worker has run so many jobs and all of them are seen in the history."""
    while worker.counts.ended.total() < jobs:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    async with queue.database.acquire() as connection:
        while await connection.fetchval(SETTLED) < jobs:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def _nothing(_job: object) -> None:
    """The handler."""


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
