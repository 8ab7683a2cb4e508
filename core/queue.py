"""Queue: what an application calls to enqueue work, to look at it, and to wait for its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import TracebackType
from typing import Self
from uuid import UUID

import asyncpg

from . import operate
from .adapter import adapted
from .enqueuer import BATCH, Enqueuer
from .errors import NotFound
from .job import Job, JobRecord, JobState, Json
from .postgres import schema, store
from .postgres.database import Database
from .results import ResultWaiter

PATIENCE = timedelta(seconds=10)
"""How long `enqueue` keeps trying while Postgres is away, before it raises Unavailable."""


class Enqueued(StrEnum):
    """What became of one job of `enqueue_many`."""

    STORED = "stored"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """One queue at this moment. `oldest` is how long the job that is next in time has been waiting."""

    queue: str
    available: int
    scheduled: int
    blocked: int
    running: int
    oldest: timedelta | None
    paused_at: datetime | None
    pause_reason: str | None


class Queue:
    """The queue in one Postgres database.

        async with Queue("postgresql://user@host/db") as queue:
            job_id = await queue.enqueue(Job("orders", {"order": 42}))

    Give a DSN, or your own asyncpg pool (`pool=`), which is then never closed here; workers need a DSN,
    because their heartbeat has a connection of its own. Every method raises Unavailable while Postgres
    is away and Misconfigured for what waiting cannot mend.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        pool: asyncpg.Pool | None = None,
        database: Database | None = None,
        connections: int = 10,
        patience: timedelta = PATIENCE,
    ) -> None:
        self.database = database or Database(dsn, pool=pool, size=connections)
        self._enqueuer = Enqueuer(self.database, patience=patience.total_seconds())
        self._results = ResultWaiter(self.database)

    async def __aenter__(self) -> Self:
        await self.database.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close what this object opened. Idempotent."""
        await self._enqueuer.close()
        await self._results.close()
        await self.database.close()

    async def migrate(self) -> None:
        """Create or upgrade the schema; the same as `hammerwork migrate`."""
        await schema.migrate(self.database)

    # --- enqueue ---

    async def enqueue(self, job: Job, *, conn: object | None = None) -> UUID:
        """Store a job and return its id. An id that is live already is left as it is.

        One that has finished is not looked for: after CommitUnknown, ask `get` before you send it again.

        With `conn` (asyncpg, psycopg or SQLAlchemy, all async) the job becomes part of the caller's
        transaction: it exists if and when that commits.
        """
        if conn is None:
            await self._enqueuer.one(job)
        else:
            await self.enqueue_many([job], conn=conn)
        return job.id

    async def enqueue_many(self, jobs: Sequence[Job], *, conn: object | None = None) -> list[Enqueued]:
        """Store many jobs; answers in their order which are new and which existed already.

        Without `conn` they commit up to 10,000 at a time, and a batch whose COMMIT was cut is sent again
        under the same ids, so nothing is stored twice.
        """
        if conn is None:
            return _answers(jobs, await self._enqueuer.many(jobs))
        stored: set[UUID] = set()
        rows, queues = [store.row_of(job) for job in jobs], sorted({job.queue for job in jobs})
        fetcher = await adapted(conn)
        for start in range(0, len(rows), BATCH):
            stored |= await store.enqueue(fetcher, rows[start : start + BATCH], queues)
        return _answers(jobs, stored)

    # --- look and wait ---

    async def get(self, job_id: UUID) -> JobRecord:
        """The job as it is now, live or finished; raises NotFound."""
        rows = await self.database.fetch("get", job_id)
        if not rows:
            raise NotFound(f"no job {job_id}")
        return store.record_of(rows[0])

    async def jobs(
        self,
        *,
        queue: str | None = None,
        state: JobState | None = None,
        correlation_id: str | None = None,
        before: UUID | None = None,
        limit: int = 50,
    ) -> list[JobRecord]:
        """Jobs, newest first. The next page: `before` the last one's id."""
        rows = await self.database.fetch("list_jobs", queue, state, correlation_id, before, limit)
        return [store.record_of(row) for row in rows]

    async def result(self, job_id: UUID, *, timeout: timedelta | None = None) -> Json:
        """Wait until the job is finished and return its result (None when it had none).

        Raises JobDead or JobCancelled for one that ended so, NotFound, ResultExpired for one whose
        result is past its TTL, and ResultTimeout when it is not finished within `timeout` (it goes on).
        """
        return await self._results.wait(job_id, timeout)

    async def stats(self) -> list[QueueStats]:
        """Every queue that has live jobs or a setting."""
        return [QueueStats(**row) for row in await self.database.fetch("queue_stats")]

    # --- acts: through the one door, core/operate ---

    async def cancel(self, job_id: UUID, reason: str = "cancelled by the application") -> JobState:
        """Cancel a waiting job at once, ask a running one to stop; returns the state it was in.

        Raises NotFound, and StateConflict for one that is finished.
        """
        return await operate.cancel(self.database, job_id, reason)

    async def retry(self, job_id: UUID) -> None:
        """Run a dead, cancelled or completed job again from attempt 1, or a scheduled one now.

        Raises NotFound, and StateConflict for one that is waiting or running.
        """
        await operate.retry(self.database, job_id)

    async def pause(self, queue: str, reason: str = "") -> None:
        """Workers claim nothing more of the queue; what runs goes on."""
        await operate.pause_queue(self.database, queue, reason)

    async def resume(self, queue: str) -> bool:
        """The opposite of `pause`; whether it was paused."""
        return await operate.resume_queue(self.database, queue)


def _answers(jobs: Sequence[Job], stored: set[UUID]) -> list[Enqueued]:
    if len(stored) == len(jobs):
        return [Enqueued.STORED] * len(jobs)
    answers = []
    for job in jobs:
        answers.append(Enqueued.STORED if job.id in stored else Enqueued.DUPLICATE)
        stored.discard(job.id)
    return answers
