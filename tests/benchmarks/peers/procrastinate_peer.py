"""Procrastinate on psycopg: bulk defer, and workers of one process that drain with a no-op task."""

from __future__ import annotations

import asyncio

from commands import obey
from procrastinate import App, PsycopgConnector
from spent import Spent

BATCH = 1000


async def nothing(**_payload: object) -> None:
    """The job."""


def application(dsn: str) -> App:
    app = App(connector=PsycopgConnector(conninfo=dsn, max_size=20))
    app.task(name="nothing", queue="bench")(nothing)
    return app


async def install(dsn: str) -> None:
    async with application(dsn).open_async() as app:
        await app.schema_manager.apply_schema_async()


async def enqueue(dsn: str, payloads: list[dict[str, object]]) -> Spent:
    async with application(dsn).open_async() as app:
        task = app.tasks["nothing"]
        spent = Spent()
        for start in range(0, len(payloads), BATCH):
            await task.batch_defer_async(*payloads[start : start + BATCH])
        spent.stop()
    return spent


async def drain(dsn: str, _jobs: int, setting: str) -> Spent:
    """Until every worker finds nothing more. A finished job is marked, or deleted where that is faster."""
    workers, concurrency, delete = setting.split()
    async with application(dsn).open_async() as app:
        spent = Spent()
        await asyncio.gather(
            *(
                app.run_worker_async(
                    name=f"worker {number}",
                    concurrency=int(concurrency),
                    wait=False,
                    delete_jobs=delete,
                    install_signal_handlers=False,
                )
                for number in range(int(workers))
            )
        )
        spent.stop()
    return spent


if __name__ == "__main__":
    obey(install, enqueue, drain)
