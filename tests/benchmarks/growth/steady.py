"""What changes over time: a steady load for minutes or hours, and the same while a transaction is open."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator

import asyncpg

from hammerwork.core.job import Job
from hammerwork.core.queue import Queue

from ..arena import Arena, Servers
from ..payloads import payloads
from ..processes import cpu_seconds, resident_bytes
from ..stages import migrated
from ..working import snapshot
from .series import Experiment, Figures, Options, Point

SAMPLES = 60
SHORTEST = 5.0
"""Seconds between two samples, at least."""

CHARTS = {
    "ms": ("p50 ms", "p99 ms"),
    "MB": ("worker MB", "jobs table MB"),
    "dead rows": ("dead rows",),
}


async def soak(servers: Servers, options: Options) -> AsyncIterator[Point]:
    """The load for so many minutes."""
    async with servers.arena(migrated) as arena, _load(arena, options.rate) as load:
        async for point in load.samples(options.minutes * 60):
            yield point


async def held(servers: Servers, options: Options) -> AsyncIterator[Point]:
    """The load for so many minutes with a snapshot held, between a tenth of them without at either end."""
    seconds = options.minutes * 60
    async with servers.arena(migrated) as arena, _load(arena, options.rate) as load:
        async for point in load.samples(seconds / 10):
            yield point
        async with snapshot(arena.dsn):
            async for point in load.samples(seconds):
                yield point
        async for point in load.samples(seconds / 10):
            yield point


@contextlib.asynccontextmanager
async def _load(arena: Arena, rate: int) -> AsyncIterator[_Load]:
    """A worker process, and this process enqueueing `rate` jobs a second."""
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"{__package__}.steady_worker", arena.dsn, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with Queue(arena.dsn) as queue:
        producing = asyncio.create_task(_produce(queue, rate), name="producer")
        try:
            yield _Load(arena, worker)
        finally:
            producing.cancel()
            await asyncio.gather(producing, return_exceptions=True)
            worker.terminate()
            await worker.wait()


async def _produce(queue: Queue, rate: int) -> None:
    """A job every 1/rate seconds, whatever became of those before."""
    given = payloads(1000)
    started, number = time.monotonic(), 0
    async with asyncio.TaskGroup() as tasks:
        while True:
            job = Job("bench", {**given[number % len(given)], "sent": time.monotonic()})
            tasks.create_task(queue.enqueue(job), name="enqueue")
            number += 1
            await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))


class _Load:
    """A load that is running, seen at intervals."""

    def __init__(self, arena: Arena, worker: asyncio.subprocess.Process) -> None:
        self._arena = arena
        self._worker = worker
        self._started = time.monotonic()

    async def samples(self, seconds: float) -> AsyncIterator[Point]:
        every = max(SHORTEST, seconds / SAMPLES)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self._worker_says()  # what was before this interval
            cpu = cpu_seconds(self._worker.pid)
            await asyncio.sleep(every)
            said = await self._worker_says()
            used = (cpu_seconds(self._worker.pid) or 0.0) - (cpu or 0.0)
            minutes = (time.monotonic() - self._started) / 60
            yield Point(
                at=f"{minutes:.1f}",
                figures={**said, "worker core": used / every, **self._memory(), **await self._table()},
            )

    async def _worker_says(self) -> dict[str, float]:
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        self._worker.stdin.write(b"\n")
        said: dict[str, float] = json.loads(await self._worker.stdout.readline())
        return said

    def _memory(self) -> Figures:
        return {"worker MB": (resident_bytes(self._worker.pid) or 0) / 1e6}

    async def _table(self) -> Figures:
        connection = await asyncpg.connect(self._arena.dsn)
        try:
            row = await connection.fetchrow(
                """
                select pg_total_relation_size('hammerwork.jobs') / 1e6 as size, n_dead_tup as dead
                from pg_stat_user_tables where relid = 'hammerwork.jobs'::regclass
                """
            )
            assert row is not None
        finally:
            await connection.close()
        return {"jobs table MB": float(row["size"]), "dead rows": float(row["dead"])}


SOAK = Experiment(name="soak", title="A steady load", grows="minutes", run=soak, charts=CHARTS)
HELD = Experiment(
    name="held",
    title="A steady load around and during an open transaction",
    grows="minutes",
    run=held,
    charts=CHARTS,
)
