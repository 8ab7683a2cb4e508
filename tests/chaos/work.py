"""The handlers of chaos tests: they say that they start, take their time, and leave one effect."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from datetime import timedelta

from hammerwork.core.execute.handlers import Handlers
from hammerwork.core.execute.running import RunningJob
from hammerwork.core.job import Job
from hammerwork.core.postgres.database import Database
from hammerwork.core.retry import Fixed

STARTS = """
    create table if not exists starts
        (id text not null, attempt int not null, pid int not null, at timestamptz default clock_timestamp())
"""


def work(ids: Iterable[str], *, how: str = "await", seconds: float = 0.0, attempts: int = 100) -> list[Job]:
    """Jobs of the queue `work`, one an id. `how` they spend `seconds`:

    `await` before the transaction that holds their effect, `block` there too but with the event loop held
    up, `block_inside` between the effect and the end of its transaction; `return` and `block_return` have
    no effect and no transaction, so the worker settles them. `fail_first` is `await` with a first attempt
    that fails at once.
    """
    return [Job("work", {"id": key, "how": how, "seconds": seconds}, max_attempts=attempts) for key in ids]


def work_handlers(database: Database, *, starts: bool = True) -> Handlers:
    """The handlers for one process; `starts` says whether each attempt leaves a row in the table starts."""
    handlers = Handlers()

    @handlers.queue("work", retry=Fixed(timedelta(milliseconds=100)))
    async def handle(job: RunningJob) -> str | None:
        how, seconds = job.payload.get("how", "await"), job.payload.get("seconds", 0.0)
        if starts:
            await _say_start(database, job)
        if how == "fail_first" and job.attempt == 1:
            raise RuntimeError(f"the first attempt of {job.payload['id']} fails")
        if how in ("block", "block_return"):
            time.sleep(seconds)  # noqa: ASYNC251 - a handler that holds up its worker's loop
        elif how != "block_inside":
            await asyncio.sleep(seconds)
        if how in ("return", "block_return"):
            return f"result of {job.payload['id']}"
        async with job.transaction() as connection:
            await connection.execute(
                "insert into effects values ($1, $2, $3)", job.payload["id"], job.id, job.attempt
            )
            if how == "block_inside":
                time.sleep(seconds)  # noqa: ASYNC251
        return None

    return handlers


async def _say_start(database: Database, job: RunningJob) -> None:
    async with database.acquire() as connection:
        await connection.execute(
            "insert into starts values ($1, $2, $3)", job.payload["id"], job.attempt, os.getpid()
        )
