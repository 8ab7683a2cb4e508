"""What grows in steps: jobs that wait, queues, payloads, worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import asyncpg

from hammerwork.core.queue import Queue

from ..arena import Arena, Servers
from ..measure import CLIENT_CPU, RATE, SERVER_CPU, WAL, Measure
from ..payloads import SMALL
from ..stages import backlog, migrated
from ..working import QUEUES as ONE_QUEUE
from ..working import empty, fill
from .series import Experiment, Options, Point

JOBS = 50_000
COMMAND = Path(sys.executable).with_name("hammerwork")
CHARTS = {"jobs/s": ("enqueue", "drain")}


async def beside_backlog(servers: Servers, options: Options) -> AsyncIterator[Point]:
    """So many jobs are due before the measured ones come, and are claimed before them."""
    for waiting in options.sizes or (10_000, 100_000, 1_000_000, 5_000_000):
        async with servers.arena(partial(backlog, jobs=waiting)) as arena:
            yield Point(at=f"{waiting:,}", figures=await _figures(arena, min(JOBS, waiting)))


async def over_queues(servers: Servers, options: Options) -> AsyncIterator[Point]:
    """The same jobs, spread over so many queues of one worker."""
    for count in options.sizes or (1, 10, 1000):
        async with servers.arena(migrated) as arena:
            queues = [f"bench-{number}" for number in range(count)]
            yield Point(at=f"{count:,}", figures=await _figures(arena, JOBS, queues=queues))


async def with_payload(servers: Servers, options: Options) -> AsyncIterator[Point]:
    """Fewer jobs where they are wide, so that a step takes seconds."""
    for size in options.sizes or (SMALL, 4096, 65_536):
        async with servers.arena(migrated) as arena:
            jobs = max(1000, min(JOBS, 40_000_000 // size))
            yield Point(at=f"{size:,} B", figures=await _figures(arena, jobs, size=size))


async def with_processes(servers: Servers, options: Options) -> AsyncIterator[Point]:
    """`hammerwork worker run --processes N`: from the first claim to the last end, by Postgres' clock."""
    for count in options.sizes or (1, 2, 4):
        async with servers.arena(migrated) as arena:
            yield Point(at=str(count), figures=await _drained_by(arena, count))


async def _figures(
    arena: Arena, jobs: int, *, size: int = SMALL, queues: list[str] | tuple[str, ...] = ONE_QUEUE
) -> dict[str, float | None]:
    async with Queue(arena.dsn) as queue:
        async with arena.measured(jobs) as enqueued:
            await fill(queue, jobs, size=size, queues=queues)
        await arena.analyse()
        async with asyncio.TaskGroup() as tasks:
            async with arena.measured(jobs) as drained:
                worker = await empty(queue, jobs, tasks, queues=queues)
            worker.stop()
    return {"enqueue": RATE.of(enqueued), "drain": RATE.of(drained), **_costs(enqueued, drained)}


def _costs(enqueued: Measure, drained: Measure) -> dict[str, float | None]:
    metrics = {"client µs": CLIENT_CPU, "server µs": SERVER_CPU, "WAL B": WAL}
    return {
        name: sum(metric.of(measure) or 0.0 for measure in (enqueued, drained))
        for name, metric in metrics.items()
    }


async def _drained_by(arena: Arena, processes: int) -> dict[str, float | None]:
    jobs = JOBS * 4
    async with Queue(arena.dsn) as queue:
        await fill(queue, jobs)
    await arena.analyse()
    connection = await asyncpg.connect(arena.dsn)
    async with arena.measured(jobs) as measure, _workers(arena.dsn, processes):
        while await connection.fetchval("select exists (select from hammerwork.jobs)"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    measure.seconds = await connection.fetchval(
        "select extract(epoch from max(finished_at) - min(claimed_at))::float8 from hammerwork.history"
    )
    await connection.close()
    return {"drain": RATE.of(measure), "server µs": SERVER_CPU.of(measure)}


@contextlib.asynccontextmanager
async def _workers(dsn: str, processes: int) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        COMMAND, "worker", "run", "hammerwork.tests.benchmarks.noop:handlers",
        "--concurrency", "500", "--processes", str(processes),
        env={**os.environ, "HAMMERWORK_DATABASE_URL": dsn, "HAMMERWORK_LOG__LEVEL": "warning"},
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


BACKLOG = Experiment(
    name="backlog",
    title="50,000 jobs behind a backlog",
    grows="jobs that wait",
    run=beside_backlog,
    charts=CHARTS,
)
QUEUES = Experiment(
    name="queues", title="50,000 jobs over many queues", grows="queues", run=over_queues, charts=CHARTS
)
PAYLOAD = Experiment(
    name="payload", title="Wide payloads", grows="bytes of payload", run=with_payload, charts=CHARTS
)
PROCESSES = Experiment(
    name="processes",
    title="Draining with several worker processes",
    grows="processes",
    run=with_processes,
    charts={"jobs/s": ("drain",)},
)
