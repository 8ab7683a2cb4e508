"""PGQueuer with asyncpg and uvloop: bulk enqueue, and a worker that drains with a no-op entrypoint."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import asyncpg
from commands import obey
from pgqueuer import PgQueuer
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.models import Job
from spent import Spent

BATCH = 1000


async def install(dsn: str) -> None:
    """Its schema with its own defaults: logged tables, the autovacuum settings it recommends."""
    connection = await asyncpg.connect(dsn)
    await Queries.from_asyncpg_connection(connection).install()
    await connection.close()


async def enqueue(dsn: str, payloads: list[object]) -> Spent:
    """A thousand jobs a call."""
    connection = await asyncpg.connect(dsn)
    queries = Queries.from_asyncpg_connection(connection)
    spent = Spent()
    for start in range(0, len(payloads), BATCH):
        bodies = [json.dumps(payload).encode() for payload in payloads[start : start + BATCH]]
        await queries.enqueue(["bench"] * len(bodies), bodies, [0] * len(bodies))
    spent.stop()
    await connection.close()
    return spent


async def drain(dsn: str, jobs: int, setting: str) -> Spent:
    """From the start of the worker until its table is empty."""
    batch, _, through = setting.partition(" ")
    connection, ended, complete = await asyncpg.connect(dsn), 0, asyncio.Event()
    pool = await asyncpg.create_pool(dsn) if through == "pool" else None
    worker = (
        PgQueuer.from_asyncpg_pool(pool) if pool is not None
        else PgQueuer.from_asyncpg_connection(await asyncpg.connect(dsn))
    )  # fmt: skip

    async def handle(_job: Job) -> None:
        nonlocal ended
        ended += 1
        if ended == jobs:
            complete.set()

    worker.entrypoint("bench")(handle)
    spent = Spent()
    running = asyncio.create_task(worker.run(dequeue_timeout=timedelta(seconds=1), batch_size=int(batch)))
    await complete.wait()
    while await connection.fetchval("select exists (select from pgqueuer)"):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    spent.stop()
    worker.shutdown.set()
    await running
    return spent


if __name__ == "__main__":
    obey(install, enqueue, drain)
