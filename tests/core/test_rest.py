"""A worker that may claim nothing rests until its poll, however long that is overdue, instead of spinning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest

from hammerwork.core.execute import worker as room
from hammerwork.core.job import Job
from hammerwork.core.queue import Queue

from .running import running, until, worker_of

POLL = timedelta(milliseconds=50)
WATCHED = 10 * POLL
MOST_RESTS = 20
"""In the time that is watched: one a poll, and as many for handlers that end and words that come."""


class Rests:
    """Counts how often a worker comes to rest, and lets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._rest = room._Life._rest
        self.life: room._Life | None = None
        monkeypatch.setattr(room._Life, "_rest", lambda life: self._counted(life))

    async def _counted(self, life: room._Life) -> None:
        self.count += 1
        self.life = life
        await self._rest(life)

    def may_not_claim(self) -> bool:
        life = self.life
        return life is not None and (not life._lease.trusted or life._settler.pending >= room.UNSETTLED_LIMIT)


@asynccontextmanager
async def locked(connection: asyncpg.Connection, table: str) -> AsyncIterator[None]:
    """A block in which nobody else writes to the table."""
    async with connection.transaction():
        await connection.execute(f"lock table hammerwork.{table} in exclusive mode")
        yield


@pytest.mark.parametrize("table", ["history", "workers"])
async def test_it_rests_until_its_poll_and_goes_on_afterwards(
    queue: Queue, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """Outcomes that cannot be written pile up (history), or its heartbeat is not heard (workers)."""
    monkeypatch.setattr(room, "UNSETTLED_LIMIT", 50)
    rests, jobs = Rests(monkeypatch), [Job("orders") for _ in range(500)]
    worker = worker_of(queue, {"orders": _nothing}, poll=POLL, lease=timedelta(seconds=0.6))
    async with running(worker):
        async with locked(connection, table):
            if table == "history":
                await queue.enqueue_many(jobs)
            await until(lambda: _true(rests.may_not_claim))
            await asyncio.sleep(2 * POLL.total_seconds())  # the poll is overdue now
            before = rests.count
            await asyncio.sleep(WATCHED.total_seconds())
            assert rests.count - before < MOST_RESTS
            assert rests.may_not_claim()
        if table == "workers":
            await queue.enqueue_many(jobs)
        await until(lambda: _true(lambda: worker.counts.ended["orders", "completed"] == len(jobs)))


async def _nothing(_job: object) -> None:
    """The handler."""


async def _true(condition: Callable[[], bool]) -> bool:
    return condition()
