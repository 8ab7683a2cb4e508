"""Settling: verdicts gather while a flush is under way, and each flush is one statement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import structlog

from ..backoff import Backoff
from ..errors import CommitUnknown, HammerworkError
from ..identity import new_id, slot_of
from ..job import JobState
from ..postgres import store
from ..postgres.database import Connection, Database, describe, mapped_errors, statement
from ..postgres.store import Completion, Fetcher, Finish, Requeue, Verdict

log = structlog.get_logger(__name__)

LARGEST_FLUSH = 1000
LINGER = 0.002
"""Seconds that a small batch waits for company (performance.md: 2 to 5 ms)."""

Ended = TypeVar("Ended", Completion, Finish)
Write = Callable[[Fetcher, UUID, Sequence[Ended]], Awaitable[set[UUID]]]


class Settler:
    """Writes verdicts in batches, fenced, and sends a batch again until its fate is known.

    `on_stale` is called with the ids that were not this worker's any more: somebody else has the job.
    """

    def __init__(self, database: Database, worker: UUID, *, on_stale: Callable[[set[UUID]], None]) -> None:
        self._database = database
        self._worker = worker
        self._on_stale = on_stale
        self._completions: list[Completion] = []
        self._finishes: list[Finish] = []
        self._requeues: list[Requeue] = []
        self._flushing: Sequence[Verdict] = ()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.settled = 0
        self.stale = 0

    @property
    def pending(self) -> int:
        """Verdicts that are not written yet."""
        return len(self._completions) + len(self._finishes) + len(self._requeues)

    def add(self, verdict: Verdict) -> None:
        match verdict:
            case Completion():
                self._completions.append(verdict)
            case Finish():
                self._finishes.append(verdict)
            case Requeue():
                self._requeues.append(verdict)
        if not self._work.is_set():
            self._work.set()
            self._idle.clear()

    def holds(self) -> set[UUID]:
        """The ids of the jobs whose verdicts are not known to be written."""
        pending = (*self._completions, *self._finishes, *self._requeues, *self._flushing)
        return {verdict.id for verdict in pending}

    async def drain(self) -> None:
        """Wait until everything that was added is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Flush until cancelled; cancelling in the middle of a flush leaves its fate to the rescue."""
        while True:
            await self._work.wait()
            if self.pending < LARGEST_FLUSH // 4:
                await asyncio.sleep(LINGER)
            completions, self._completions = _split(self._completions)
            finishes, self._finishes = _split(self._finishes)
            requeues, self._requeues = _split(self._requeues)
            self._flushing = (*completions, *finishes, *requeues)
            if completions:
                await self._end(completions, store.complete)
            if finishes:
                await self._end(finishes, store.finish)
            if requeues:
                await self._requeue(requeues)
            self._flushing = ()
            if not self.pending:
                self._work.clear()
                self._idle.set()

    async def _end(self, batch: Sequence[Ended], write: Write[Ended], *, last: bool = False) -> None:
        """Write one batch, whatever it takes; a row that Postgres refuses is isolated by halving and ends
        as a dead letter. `last`: this is that dead letter."""
        backoff, unsure = Backoff(longest=2.0), False
        while True:
            try:
                async with self._database.acquire() as connection:
                    with mapped_errors(self._database.where, sent=True):
                        missing = await write(connection, self._worker, batch)
                        if missing and unsure:
                            missing -= await self._ended_before(connection, batch)
                self.settled += len(batch) - len(missing)
                self._report(missing)
                return
            except HammerworkError as error:
                unsure = unsure or isinstance(error, CommitUnknown)
                await _pause(backoff, "jobs could not be settled yet", len(batch), error)
            except asyncpg.PostgresError as error:
                if last:
                    log.error("a job cannot be settled", job=str(batch[0].id), error=describe(error))
                elif len(batch) == 1:
                    await self._give_up(batch[0], error)
                else:
                    middle = len(batch) // 2
                    await self._end(batch[:middle], write)
                    await self._end(batch[middle:], write)
                return

    async def _give_up(self, refused: Verdict, error: asyncpg.PostgresError) -> None:
        log.error("a job's outcome was refused by Postgres", job=str(refused.id), error=describe(error))
        reason = f"its outcome could not be stored: {describe(error)}"
        dead = Finish(
            id=refused.id, lease=refused.lease, state=JobState.DEAD, cause="failed", error=reason,
            dead_letter_id=new_id(slot_of(refused.id)),
        )  # fmt: skip
        await self._end([dead], store.finish, last=True)

    async def _requeue(self, batch: Sequence[Requeue]) -> None:
        """As `_end`, for jobs that go back to their queues."""
        backoff, unsure = Backoff(longest=2.0), False
        while True:
            try:
                async with self._database.acquire() as connection:
                    with mapped_errors(self._database.where, sent=True):
                        back = await store.requeue(connection, self._worker, batch)
                        missing = {requeue.id for requeue in batch} - {row["id"] for row in back}
                        held = await connection.fetch(statement("held_jobs"), self._worker, list(missing))
                break
            except HammerworkError as error:
                unsure = unsure or isinstance(error, CommitUnknown)
                await _pause(backoff, "jobs could not be given back yet", len(batch), error)
            except asyncpg.PostgresError as error:
                if len(batch) == 1:
                    await self._give_up(batch[0], error)
                else:
                    middle = len(batch) // 2
                    await self._requeue(batch[:middle])
                    await self._requeue(batch[middle:])
                return
        self.settled += len(back)
        # What is still ours was left because its cancellation was asked for meanwhile.
        for row in held:
            self.add(
                Finish(id=row["id"], lease=row["lease"], state=JobState.CANCELLED, error=row["cancel_reason"],
                       dead_letter_id=row["id"])
            )  # fmt: skip
        if not unsure:
            self._report(missing - {row["id"] for row in held})

    async def _ended_before(self, connection: Connection, batch: Sequence[Completion | Finish]) -> set[UUID]:
        rows = await connection.fetch(
            statement("finished_by"), self._worker, [end.id for end in batch], [end.lease for end in batch]
        )
        return {row["id"] for row in rows}

    def _report(self, missing: set[UUID]) -> None:
        if missing:
            self.stale += len(missing)
            self._on_stale(missing)


def _split(verdicts: list[Any]) -> tuple[list[Any], list[Any]]:
    """What goes into this flush, and what is left for the next."""
    return verdicts[:LARGEST_FLUSH], verdicts[LARGEST_FLUSH:]


async def _pause(backoff: Backoff, what: str, jobs: int, error: HammerworkError) -> None:
    delay = backoff.next()
    log.warning(what, jobs=jobs, error=str(error), retry_in=round(delay, 2))
    await asyncio.sleep(delay)
