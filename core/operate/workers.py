"""Which workers there are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from ..postgres.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A worker's life as the database knows it. `silent` is the age of its heartbeat."""

    id: UUID
    host: str
    pid: int
    queues: list[str]
    concurrency: int
    lease: timedelta
    state: str
    started_at: datetime
    heartbeat_at: datetime
    silent: timedelta
    lost: bool


async def workers(database: Database) -> list[WorkerInfo]:
    return [WorkerInfo(**row) for row in await database.fetch("list_workers")]
