"""Enqueuer: how jobs get into Postgres, in as few round trips as their callers allow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
import structlog

from .backoff import Backoff
from .errors import CommitUnknown, Unavailable
from .job import Job
from .postgres import store
from .postgres.database import Database, mapped_errors
from .postgres.notifier import Announcer

log = structlog.get_logger(__name__)

BATCH = 5000
"""Jobs a transaction: while Postgres stores the first of them, the driver encodes the rest."""

FLIGHTS = 2
"""Statements under way at once for single jobs: while one commits, the next one is sent."""

Row = tuple[object, ...]


@dataclass(slots=True)
class _Waiting:
    """A single job on its way, and who waits for it: true when it is stored, false when it existed."""

    row: Row
    queue: str
    stored: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Enqueuer:
    """Stores jobs, each call in transactions of its own, and says which were new.

    Many jobs go a thousand at a time. Single jobs that are enqueued while others are on their way share
    the next statement with all that came meanwhile: nobody waits for company, and many producers pay for
    few COMMITs. While Postgres is away it tries again for `patience` seconds, then raises Unavailable; ids
    make a batch safe to send twice.
    """

    def __init__(self, database: Database, *, patience: float) -> None:
        self._database = database
        self._announcer = Announcer(database)
        self._patience = patience
        self._waiting: list[_Waiting] = []
        self._flights: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Store what waits, and say what is owed to idle workers."""
        while self._flights:
            await asyncio.wait(self._flights)
        await self._announcer.close()

    async def many(self, jobs: Sequence[Job]) -> set[UUID]:
        """The ids that were new. A job that cannot be stored is refused before any of them is."""
        stored: set[UUID] = set()
        rows = [store.row_of(job) for job in jobs]
        for start in range(0, len(jobs), BATCH):
            chunk = slice(start, start + BATCH)
            stored |= await self._store(rows[chunk], {job.queue for job in jobs[chunk]})
        return stored

    async def one(self, job: Job) -> bool:
        """Whether it was new. A caller that is cancelled leaves open whether its job is stored."""
        waiting = _Waiting(store.row_of(job), job.queue)
        self._waiting.append(waiting)
        if len(self._flights) < FLIGHTS:
            flight = asyncio.create_task(self._fly(), name="enqueue")
            self._flights.add(flight)
            flight.add_done_callback(self._flights.discard)
        return await waiting.stored

    async def _fly(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            batch = [waiting for waiting in batch if not waiting.stored.done()]
            try:
                await self._land(batch)
            except Exception as error:
                await self._apart(batch, error)

    async def _land(self, batch: Sequence[_Waiting]) -> None:
        if not batch:
            return
        stored = await self._store([waiting.row for waiting in batch], {waiting.queue for waiting in batch})
        for waiting in batch:
            if not waiting.stored.done():
                waiting.stored.set_result(waiting.row[0] in stored)

    async def _apart(self, batch: Sequence[_Waiting], error: Exception) -> None:
        """Tell the error to its caller. What Postgres refuses is one job's fault, and not its neighbours'."""
        if len(batch) > 1 and isinstance(error, asyncpg.PostgresError):
            for waiting in batch:
                try:
                    await self._land([waiting])
                except Exception as own:
                    await self._apart([waiting], own)
            return
        for waiting in batch:
            if not waiting.stored.done():
                waiting.stored.set_exception(error)

    async def _store(self, rows: Sequence[Row], queues: set[str]) -> set[UUID]:
        stored = await self._persist(rows)
        self._announcer.announce(queues)
        return stored

    async def _persist(self, rows: Sequence[Row]) -> set[UUID]:
        backoff, known, unsure = Backoff(first=0.05, longest=1.0), False, False
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while True:
            try:
                if len(rows) < store.COPY_FROM or known or unsure:
                    return await self._by_statement(rows, unsure=unsure)
                return await self._by_copy(rows)
            except asyncpg.UniqueViolationError:
                known = True
            except Unavailable as error:
                unsure = unsure or isinstance(error, CommitUnknown)
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(backoff.next())

    async def _by_copy(self, rows: Sequence[Row]) -> set[UUID]:
        async with self._database.transaction() as connection:
            return await store.enqueue_fresh(connection, rows)

    async def _by_statement(self, rows: Sequence[Row], *, unsure: bool) -> set[UUID]:
        async with self._database.acquire() as connection:
            with mapped_errors(self._database.where, sent=True):
                if unsure:
                    rows = await store.not_stored(connection, rows)
                return await store.enqueue(connection, rows)
