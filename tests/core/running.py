"""What tests of the queue share: actors that run beside a test, waiting for what they do, both servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import asyncpg
import pytest

from hammerwork.core.execute.handlers import Handler, Handlers
from hammerwork.core.execute.running import RunningJob
from hammerwork.core.execute.worker import Worker
from hammerwork.core.job import Job, JobRecord, JobState
from hammerwork.core.queue import Queue

both_servers = pytest.mark.parametrize("dsn", ["newest", "oldest"], indirect=True)
"""Run the test on the newest and on the oldest Postgres that is supported."""


class Actor(Protocol):
    async def run(self) -> None: ...


@asynccontextmanager
async def running(actor: Actor, *, within: float = 15.0) -> AsyncIterator[asyncio.Task[None]]:
    """Run it until the block ends; then `stop()` it, or cancel it where it has no `stop`. What it raised
    is raised here."""
    task = asyncio.create_task(actor.run(), name=type(actor).__name__)
    try:
        yield task
    finally:
        getattr(actor, "stop", task.cancel)()
        await asyncio.wait([task], timeout=within)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise TimeoutError(f"{task.get_name()} did not stop within {within:g} s")
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


def worker_of(queue: Queue, handlers: Handlers | Mapping[str, Handler], **options: Any) -> Worker:
    """A worker that looks for itself every 50 ms, without upkeep, unless told otherwise."""
    usual: dict[str, Any] = {"poll": timedelta(milliseconds=50), "upkeep": False, "concurrency": 4}
    return Worker(queue, handlers, **(usual | options))


async def until(condition: Callable[[], Awaitable[bool]], *, within: float = 10.0) -> float:
    """Poll until the condition holds; the seconds that it took. Fails the test after `within` seconds."""
    started = time.monotonic()
    while not await condition():
        if time.monotonic() - started > within:
            pytest.fail(f"not within {within:g} s: {condition}")
        await asyncio.sleep(0.01)
    return time.monotonic() - started


async def scans_of(table: str, dsn: str) -> int:
    """How often the server has gone through a table of ours, by an index or whole. What a session did is
    counted when it is closed."""
    connection = await asyncpg.connect(dsn)
    try:
        scans = await connection.fetchval(
            "select seq_scan + idx_scan from pg_stat_user_tables"
            " where schemaname = 'hammerwork' and relname = $1",
            table,
        )
    finally:
        await connection.close()
    return int(scans)


async def before(event: asyncio.Event, within: float = 10.0) -> None:
    """Wait for a signal, with a deadline."""
    await asyncio.wait_for(event.wait(), within)


async def ran(queue: Queue, job: Job, handler: Handler, **route: Any) -> JobRecord:
    """The job as it is stored after one attempt by this handler."""
    handlers = Handlers()
    handlers.add(job.queue, handler, **route)
    await queue.enqueue(job)
    async with running(worker_of(queue, handlers)):
        await until(lambda: attempted(queue, job))
    return await queue.get(job.id)


async def attempted(queue: Queue, job: Job) -> bool:
    stored = await queue.get(job.id)
    return stored.state.final or (stored.state is JobState.SCHEDULED and stored.lease > 0)


async def until_final(queue: Queue, job_id: UUID) -> None:
    async def final() -> bool:
        return (await queue.get(job_id)).state.final

    await until(final)


async def end(queue: Queue, *outcomes: tuple[Job, object]) -> None:
    """Store these jobs and run each to the outcome that stands beside it."""
    answers = {job.id: outcome for job, outcome in outcomes}

    async def handle(job: RunningJob) -> Any:
        return answers[job.id]

    await queue.enqueue_many([job for job, _ in outcomes])
    async with running(worker_of(queue, {"orders": handle})):
        for job, _ in outcomes:
            await until_final(queue, job.id)
