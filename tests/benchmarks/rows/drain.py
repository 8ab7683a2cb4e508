"""Draining a full queue with a no-op handler: alone, beside waiting jobs, and under an old snapshot."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

import asyncpg

from hammerwork.core.execute.floors import Floors
from hammerwork.core.execute.roster import Wanted
from hammerwork.core.identity import new_id
from hammerwork.core.postgres import store
from hammerwork.core.postgres.database import statement
from hammerwork.core.postgres.store import Completion
from hammerwork.core.queue import Queue

from ..arena import Arena
from ..measure import RATE, Measure
from ..peers import PEERS
from ..row import Bar, Row, Side
from ..stages import two_million_waiting
from ..working import empty, fill, snapshot

JOBS = 50_000
HELD_JOBS = 100_000
BATCH = 500


async def drain(arena: Arena, jobs: int = JOBS) -> Measure:
    """One process, everything on: fenced, with history, durable, heartbeat and upkeep beside it."""
    async with Queue(arena.dsn) as queue:
        await fill(queue, jobs)
        await arena.analyse()
        async with asyncio.TaskGroup() as tasks:
            async with arena.measured(jobs) as measure:
                worker = await empty(queue, jobs, tasks)
            worker.stop()
    return measure


async def bare_loop(arena: Arena) -> Measure:
    """The same statements in a loop on one connection, 500 jobs at a time, and no Python a job but the
    tuple that finishes it."""
    async with Queue(arena.dsn) as queue:
        await fill(queue, JOBS)
    await arena.analyse()
    connection = await asyncpg.connect(arena.dsn)
    worker = new_id()
    await connection.fetch(
        statement("register_worker"), worker, "bench", 0, ["bench"], BATCH, timedelta(minutes=10)
    )
    async with arena.measured(JOBS) as measure:
        heads = Floors().columns(Wanted({"bench": BATCH}, BATCH, BATCH), whole=True)
        while rows := await connection.fetch(statement("claim"), *heads, BATCH, worker):
            completions = [Completion(row["id"], row["lease"], 0.0, None) for row in rows]
            await store.complete(connection, worker, completions)
    await connection.close()
    return measure


async def drain_under_snapshot(arena: Arena) -> Measure:
    """A transaction holds a snapshot from before the first job to after the last: nothing can be vacuumed."""
    async with snapshot(arena.dsn):
        return await drain(arena, HELD_JOBS)


ROWS = [
    Row(
        name="drain",
        title="Drain 50,000 jobs, one process",
        sides=[
            Side(name="bare SQL", run=bare_loop),
            Side(name="hammerwork", run=drain),
            *(peer.draining for peer in PEERS),
        ],
        bars=[
            Bar(metric=RATE, beside="bare SQL", least=0.75),
            Bar(metric=RATE, beside="PGQueuer", least=3.0),
        ],
    ),
    Row(
        name="drain-scheduled",
        title="Drain 50,000 jobs beside a million scheduled and a million blocked",
        sides=[
            Side(name="alone", run=drain),
            Side(name="hammerwork", run=drain, stage=two_million_waiting),
        ],
        bars=[Bar(metric=RATE, beside="alone", least=0.9)],
    ),
    Row(
        name="drain-held",
        title="Drain 100,000 jobs while a transaction is open",
        sides=[
            Side(name="alone", run=partial(drain, jobs=HELD_JOBS)),
            Side(name="hammerwork", run=drain_under_snapshot),
        ],
        bars=[Bar(metric=RATE, beside="alone", least=0.7)],
    ),
]
