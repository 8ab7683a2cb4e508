"""Acts on jobs: cancel, retry, and what went wrong with each attempt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ..errors import NotFound, StateConflict
from ..job import JobState
from ..postgres.database import Database


async def cancel(database: Database, job_id: UUID, reason: str) -> JobState:
    """Cancel a waiting job, ask a running one to stop; the state it was in. NotFound, StateConflict."""
    rows = await database.fetch("cancel", [job_id], reason)
    if not rows:
        await _refuse(database, job_id, "cancel")
    return JobState(rows[0]["state"])


async def retry(database: Database, job_id: UUID) -> None:
    """A finished job gets all its attempts again; a scheduled one is due now. NotFound, StateConflict."""
    if not await database.fetch("retry", [job_id]):
        await _refuse(database, job_id, "retry")


async def _refuse(database: Database, job_id: UUID, act: str) -> None:
    rows = await database.fetch("get", job_id)
    if not rows:
        raise NotFound(f"no job {job_id}")
    raise StateConflict(f"cannot {act} job {job_id}: it is {rows[0]['state']}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One unsuccessful attempt of a job. `cause`: failed, timed_out or lost."""

    attempt: int
    lease: int
    worker: UUID | None
    started_at: datetime | None
    ended_at: datetime
    cause: str
    error: str | None
    traceback: str | None


async def attempts(database: Database, job_id: UUID) -> list[Attempt]:
    """The job's unsuccessful attempts, oldest first."""
    return [Attempt(**row) for row in await database.fetch("attempts_of", job_id)]
