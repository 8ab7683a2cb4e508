"""Procrastinate on psycopg: bulk defer, and workers of one process that drain with a no-op task."""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import cycle, islice
from pathlib import Path

import uvloop
from procrastinate import App, PsycopgConnector
from spent import Spent

BATCH = 1000


async def nothing(**_payload: object) -> None:
    """The job."""


def application(dsn: str) -> App:
    app = App(connector=PsycopgConnector(conninfo=dsn, max_size=20))
    app.task(name="nothing", queue="bench")(nothing)
    return app


async def install(app: App) -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def enqueue(app: App, payloads: list[dict[str, object]]) -> Spent:
    async with app.open_async():
        task = app.tasks["nothing"]
        spent = Spent()
        for start in range(0, len(payloads), BATCH):
            await task.batch_defer_async(*payloads[start : start + BATCH])
        spent.stop()
    return spent


async def drain(app: App, setting: str) -> Spent:
    """Until every worker finds nothing more. A finished job is marked, or deleted where that is faster."""
    workers, concurrency, delete = setting.split()
    async with app.open_async():
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


def main(command: str, dsn: str, jobs: str, payloads: str, setting: str) -> None:
    app = application(dsn)
    match command:
        case "install":
            uvloop.run(install(app))
        case "enqueue":
            given = cycle(json.loads(Path(payloads).read_text()))
            uvloop.run(enqueue(app, list(islice(given, int(jobs))))).report()
        case "drain":
            uvloop.run(drain(app, setting)).report()


if __name__ == "__main__":
    main(*sys.argv[1:])
