"""Stages: what a database holds before a round begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg

from hammerwork.core.queue import Queue

Stage = Callable[[str], Awaitable[None]]
"""Sets the database of this DSN up. It runs once; every round then gets a copy."""


async def empty(_dsn: str) -> None:
    """Nothing, for those who bring a schema of their own."""


async def migrated(dsn: str) -> None:
    """Our schema."""
    async with Queue(dsn) as queue:
        await queue.migrate()


async def two_million_waiting(dsn: str) -> None:
    """A million scheduled jobs, due from tomorrow on, and a million blocked ones, in the same queue."""
    await migrated(dsn)
    await _insert(dsn, 1_000_000, "scheduled", due="interval '1 day' + n * interval '1 second'")
    await _insert(dsn, 1_000_000, "blocked")


async def backlog(dsn: str, *, jobs: int) -> None:
    """So many jobs that are due."""
    await migrated(dsn)
    await _insert(dsn, jobs, "available")


async def _insert(dsn: str, jobs: int, state: str, *, due: str = "n * interval '1 microsecond'") -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            f"""
            insert into hammerwork.jobs (id, queue, state, run_at, payload)
            select hammerwork.new_id(), 'bench', '{state}', now() + {due},
                   jsonb_build_object('order', n, 'text', repeat(md5(n::text), 4))
            from generate_series(1, {jobs}) as n
            """,  # noqa: S608 - our own words
            timeout=1200,
        )
        await connection.execute("vacuum (analyze) hammerwork.jobs", timeout=1200)
    finally:
        await connection.close()
