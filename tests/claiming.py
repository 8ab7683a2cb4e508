"""A claim by hand, for tests in which no worker runs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from hammerwork.core.execute.floors import Floors
from hammerwork.core.execute.roster import Wanted
from hammerwork.core.postgres.database import Database


async def claim(database: Database, queue: str, worker: UUID, count: int = 1) -> list[Any]:
    """Claim jobs of one queue on behalf of a worker that is registered but does not run."""
    return await database.fetch(
        "claim", *Floors().columns(Wanted({queue: count}, count, count), whole=True), count, worker
    )
