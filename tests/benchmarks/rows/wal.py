"""What a job costs in write-ahead log, from its enqueueing to its row in the history."""

from __future__ import annotations

import asyncio
from functools import partial

from hammerwork.core.queue import Queue

from ..arena import Arena
from ..measure import CLIENT_CPU, DEAD_ROWS, RATE, SERVER_CPU, WAL, Measure
from ..payloads import SMALL
from ..row import Bar, Row, Side
from ..working import empty, fill

KIB = 1024
WIDE = 4 * KIB


async def whole_life(arena: Arena, size: int, jobs: int) -> Measure:
    """Enqueue, then drain; the payloads do not compress."""
    async with Queue(arena.dsn) as queue, asyncio.TaskGroup() as tasks:
        async with arena.measured(jobs) as measure:
            await fill(queue, jobs, size=size)
            worker = await empty(queue, jobs, tasks)
        worker.stop()
    return measure


ROWS = [
    Row(
        name="wal",
        title="WAL per job, from enqueueing to history",
        sides=[
            Side(name="150 B payload", run=partial(whole_life, size=SMALL, jobs=20_000)),
            Side(name="4 KiB payload", run=partial(whole_life, size=WIDE, jobs=5_000)),
        ],
        bars=[
            Bar(metric=WAL, side="150 B payload", most=1.5 * KIB),
            Bar(metric=WAL, side="4 KiB payload", most=1.3 * KIB + 2.2 * WIDE),
        ],
        columns=(WAL, RATE, CLIENT_CPU, SERVER_CPU, DEAD_ROWS),
    )
]
