"""Enqueuer: how jobs get into Postgres, in as few round trips as their callers allow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

import asyncpg

from .backoff import Backoff
from .errors import CommitUnknown, HammerworkError, Misconfigured, Unavailable
from .job import Job
from .postgres import store
from .postgres.database import Database, describe, mapped_errors
from .postgres.notifier import Announcer

COPY_BATCH = 10_000
"""Jobs a COPY and its transaction: of fewer, its beginning and its end show, in which one side waits."""

MOST = 16 * 1024 * 1024
"""Characters of rows, about, a COPY or a statement: it is over well before its time limit, also on a slow
server."""

BATCH = 2000
"""Jobs a statement, whose rows are all in memory at once."""

TURN = 64 * 1024
"""Characters of rows that are made at a time: less than a millisecond of the event loop."""

FLIGHTS = 2
"""Statements under way at once for single jobs: while one commits, the next one is sent."""

Row = tuple[Any, ...]


@dataclass(slots=True)
class _Waiting:
    """A single job on its way, and who waits for it to be stored, by us or before."""

    row: Row
    stored: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Enqueuer:
    """Stores jobs in transactions of its own.

    Many jobs go by COPY, COPY_BATCH at a time, or else BATCH at a time. Single jobs that are enqueued while
    two statements are under way share the next one with all that came meanwhile, so that many producers pay
    for few COMMITs; one that comes alone is sent at once. While Postgres is away a statement is sent again
    for `patience` seconds, then its callers get Unavailable; ids make it safe to send twice.
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
        """The ids that were new. Jobs are stored in the order in which they were given; one that cannot be
        stored is refused before any of its transaction is stored."""
        stored: set[UUID] = set()
        done = 0
        try:
            while done < len(jobs):
                done += await self._first_of(jobs[done : done + COPY_BATCH], stored)
        except asyncpg.DataError as error:
            raise _unfit(error) from error
        return stored

    async def _first_of(self, jobs: Sequence[Job], stored: set[UUID]) -> int:
        """Store the first of these jobs and add the ids that were new to `stored`; how many they were.

        By one COPY if that goes through at once, else all of them, BATCH at a time.
        """
        known = unsure = False
        # A pool that is not ours may have codecs of its own, which a COPY would put the payloads through.
        if self._database.reachable and store.copyable(jobs):
            try:
                ids = await self._stream(jobs)
            except asyncpg.UniqueViolationError:
                known = True
            except Unavailable as error:
                unsure = isinstance(error, CommitUnknown)
            else:
                stored |= ids
                return len(ids)
        done = 0
        while done < len(jobs):
            rows = [row async for row in _rows(jobs[done : done + BATCH], set())]
            stored |= await self._persist(rows, known=known, unsure=unsure)
            self._announcer.announce({row[1] for row in rows})
            done += len(rows)
        return done

    async def _stream(self, jobs: Sequence[Job]) -> set[UUID]:
        """Store the first of these jobs by one COPY; their ids."""
        ids: set[UUID] = set()
        async with self._database.transaction() as connection:
            await store.copy(connection, _rows(jobs, ids), ids)
        self._announcer.announce({job.queue for job in jobs[: len(ids)]})
        return ids

    async def one(self, job: Job) -> None:
        """Return when it is stored. A caller that is cancelled leaves open whether it is."""
        waiting = _Waiting(store.row_of(job))
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
            await self._persist([waiting.row for waiting in batch])
        except HammerworkError as error:
            _tell(batch, error)
        except Exception as error:
            if len(batch) == 1:
                return _tell(batch, _unfit(error) if isinstance(error, asyncpg.DataError) else error)
            middle = len(batch) // 2
            await self._land(batch[:middle])
            await self._land(batch[middle:])
        else:
            self._announcer.announce({waiting.row[1] for waiting in batch})
            _tell(batch)

    async def _persist(self, rows: Sequence[Row], *, known: bool = False, unsure: bool = False) -> set[UUID]:
        """Store rows, again until it is known that they are; the ids that were new. `known`: some are stored
        already; `unsure`: we may have stored all of them."""
        backoff = Backoff(first=0.05, longest=1.0)
        copied = self._database.reachable and len(rows) >= store.COPY_FROM and not (known or unsure)
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


async def _rows(jobs: Sequence[Job], ids: set[UUID]) -> AsyncIterator[Row]:
    """The first of these jobs as rows, as many as come to MOST, in turn with whatever else the event
    loop has to do; `ids` grows with them."""
    size, turn = 0, TURN
    for job in jobs:
        row: Row = store.row_of(job)
        ids.add(job.id)
        yield row
        size += store.size_of(row)
        if size > MOST:
            return
        if size > turn:
            turn = size + TURN
            await asyncio.sleep(0)


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
