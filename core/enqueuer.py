"""Enqueuer: how jobs get into Postgres, in as few round trips as their callers allow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID

import asyncpg

from .backoff import Backoff
from .errors import CommitUnknown, HammerworkError, Misconfigured, Unavailable
from .job import Job
from .postgres import store
from .postgres.database import Database, describe, mapped_errors
from .postgres.notifier import Announcer

BATCH = 2000
"""Jobs a transaction: of fewer the round trips show, of more the first and the last overlap with nothing."""

SLICE = 200
"""Jobs that are made ready at a time: less than a millisecond of the event loop."""

FLIGHTS = 2
"""Statements under way at once for single jobs: while one commits, the next one is sent."""

Row = tuple[object, ...]


@dataclass(slots=True)
class _Waiting:
    """A single job on its way, and who waits for it to be stored, by us or before."""

    row: Row
    queue: str
    stored: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Enqueuer:
    """Stores jobs in transactions of its own.

    Many jobs go BATCH at a time. Single jobs that are enqueued while two statements are under way share the
    next one with all that came meanwhile, so that many producers pay for few COMMITs; one that comes alone is
    sent at once. While Postgres is away a statement is sent again for `patience` seconds, then its callers
    get Unavailable; ids make it safe to send twice.
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
        """The ids that were new. A job that cannot be stored is refused before any of its BATCH is stored.

        Each BATCH is stored while the next one is made ready, in the order in which they were given.
        """
        stored: set[UUID] = set()
        storing: asyncio.Task[set[UUID]] | None = None
        try:
            for start in range(0, len(jobs), BATCH):
                batch = jobs[start : start + BATCH]
                rows = await _rows(batch)
                if storing is not None:
                    stored |= await storing
                storing = asyncio.create_task(
                    self._store(rows, {job.queue for job in batch}), name="enqueue many"
                )
            return stored if storing is None else stored | await storing
        except BaseException as error:
            if storing is not None:
                storing.cancel()
                await asyncio.gather(storing, return_exceptions=True)
            if isinstance(error, asyncpg.DataError):
                raise _unfit(error) from error
            raise

    async def one(self, job: Job) -> None:
        """Return when it is stored. A caller that is cancelled leaves open whether it is."""
        waiting = _Waiting(store.row_of(job), job.queue)
        self._waiting.append(waiting)
        if len(self._flights) < FLIGHTS:
            self._flights.add(asyncio.create_task(self._fly(), name="enqueue"))
        await waiting.stored

    async def _fly(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                await self._land([waiting for waiting in batch if not waiting.stored.done()])
        finally:
            # In the step that saw nobody wait: a flight that is over must not count as one under way.
            self._flights.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _land(self, batch: Sequence[_Waiting]) -> None:
        """Store these, and tell their callers. What is refused is one job's fault and not its neighbours':
        it is found by halving."""
        if not batch:
            return None
        try:
            await self._store([waiting.row for waiting in batch], {waiting.queue for waiting in batch})
        except HammerworkError as error:
            _tell(batch, error)
        except Exception as error:
            if len(batch) == 1:
                return _tell(batch, _unfit(error) if isinstance(error, asyncpg.DataError) else error)
            middle = len(batch) // 2
            await self._land(batch[:middle])
            await self._land(batch[middle:])
        else:
            _tell(batch)

    async def _store(self, rows: Sequence[Row], queues: set[str]) -> set[UUID]:
        stored = await self._persist(rows)
        self._announcer.announce(queues)
        return stored

    async def _persist(self, rows: Sequence[Row]) -> set[UUID]:
        backoff, unsure = Backoff(first=0.05, longest=1.0), False
        # A pool that is not ours may have codecs of its own, which a COPY would put the payloads through.
        copied = self._database.reachable and len(rows) >= store.COPY_FROM
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while True:
            try:
                if copied:
                    return await self._by_copy(rows)
                return await self._by_statement(rows, unsure=unsure)
            except asyncpg.UniqueViolationError:
                if not copied:
                    raise  # an index of the operator's own
                copied = False
            except Unavailable as error:
                unsure = unsure or isinstance(error, CommitUnknown)
                copied = copied and not unsure
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


async def _rows(jobs: Sequence[Job]) -> list[Row]:
    """The jobs as rows, in turn with whatever else the event loop has to do."""
    rows: list[Row] = []
    for start in range(0, len(jobs), SLICE):
        rows.extend(map(store.row_of, jobs[start : start + SLICE]))
        await asyncio.sleep(0)
    return rows


def _unfit(error: asyncpg.DataError) -> Misconfigured:
    """A value that no try again makes fit, in our words."""
    unfit = Misconfigured(
        f"Postgres cannot take a value of the job: {describe(error)}",
        hint="look at its times, its numbers and its id",
    )
    unfit.__cause__ = error
    return unfit


def _tell(batch: Sequence[_Waiting], error: Exception | None = None) -> None:
    for waiting in batch:
        if waiting.stored.done():
            continue  # its caller gave up
        if error is None:
            waiting.stored.set_result(None)
        else:
            waiting.stored.set_exception(error)
