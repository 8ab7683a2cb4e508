"""What tests of the queue share: actors that run beside a test, waiting for what they do, both servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Protocol

import pytest

from hammerwork.core.execute.handlers import Handler, Handlers
from hammerwork.core.execute.worker import Worker
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


async def before(event: asyncio.Event, within: float = 10.0) -> None:
    """Wait for a signal, with a deadline."""
    await asyncio.wait_for(event.wait(), within)
