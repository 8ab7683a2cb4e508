"""Acts on queues: pause and resume."""

from __future__ import annotations

from ..job import check_name
from ..postgres.database import Database


async def pause_queue(database: Database, queue: str, reason: str = "") -> None:
    """Nothing more of the queue is claimed, by any worker, until `resume_queue`."""
    await database.fetch("pause_queue", check_name("queue", queue), reason)


async def resume_queue(database: Database, queue: str) -> bool:
    """Claim again; whether the queue was paused."""
    resumed = await database.fetch("resume_queue", check_name("queue", queue))
    if resumed:
        await database.fetch("announce", [f"queue {queue}"])
    return bool(resumed)
