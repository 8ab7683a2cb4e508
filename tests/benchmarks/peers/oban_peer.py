"""Oban for Python: bulk enqueue, and one queue that drains with a no-op job."""

from __future__ import annotations

import asyncio

from commands import obey
from oban import Oban, job
from oban.schema import install as install_schema
from spent import Spent

BATCH = 1000
STATES = "select exists (select from oban_jobs where state in ('available', 'executing'))"

awaited = 0
complete = asyncio.Event()


async def nothing(_payload: object) -> None:
    global awaited
    awaited -= 1
    if not awaited:
        complete.set()


do_nothing = job(queue="bench")(nothing)


async def install(dsn: str) -> None:
    async with await Oban.create_pool(dsn) as pool:
        await install_schema(pool)


async def enqueue(dsn: str, payloads: list[object]) -> Spent:
    async with await Oban.create_pool(dsn) as pool:
        oban = Oban(pool=pool)
        spent = Spent()
        for start in range(0, len(payloads), BATCH):
            await oban.enqueue_many([do_nothing.new(payload) for payload in payloads[start : start + BATCH]])
        spent.stop()
    return spent


async def drain(dsn: str, jobs: int, limit: str) -> Spent:
    """Until every job is marked as completed."""
    global awaited
    awaited = jobs
    async with await Oban.create_pool(dsn) as pool:
        spent = Spent()
        async with Oban(pool=pool, queues={"bench": int(limit)}), pool.connection() as connection:
            await complete.wait()
            while (await (await connection.execute(STATES)).fetchone())[0]:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            spent.stop()
    return spent


if __name__ == "__main__":
    obey(install, enqueue, drain)
