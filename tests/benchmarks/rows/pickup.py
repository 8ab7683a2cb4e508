"""From the call of enqueue to the start of the handler, at a steady pace, beside LISTEN and NOTIFY."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random

import asyncpg

from hammerwork.core.execute.running import RunningJob
from hammerwork.core.execute.worker import Worker
from hammerwork.core.job import Job
from hammerwork.core.queue import Queue

from ..arena import Arena
from ..measure import CLIENT_CPU, P50, P99, RATE, SERVER_CPU, WAL, Measure
from ..payloads import payloads
from ..row import Bar, Row, Side

CONNECTIONS = 10
WITHIN = 30.0
"""Seconds after which something that did not arrive is lost."""


class Arrivals:
    """Things sent at random moments, `rate` a second on average, and how long each was under way.

    Nothing waits for what was sent before, so that one that is late makes the next ones no later.
    """

    def __init__(self, count: int, rate: float) -> None:
        random = Random(count)
        self.gaps = [random.expovariate(rate) for _ in range(count)]
        self._sent = [0.0] * count
        self._took: dict[int, float] = {}
        self._complete = asyncio.Event()

    async def send(self, one: Callable[[int], Awaitable[object]]) -> None:
        """Call `one` with each number at its moment, and wait until all have arrived."""
        async with asyncio.TaskGroup() as tasks:
            due = time.perf_counter()
            for number, gap in enumerate(self.gaps):
                due += gap
                await asyncio.sleep(due - time.perf_counter())
                tasks.create_task(self._send(one, number), name=f"send {number}")
        async with asyncio.timeout(WITHIN):
            await self._complete.wait()

    async def _send(self, one: Callable[[int], Awaitable[object]], number: int) -> None:
        self._sent[number] = time.perf_counter()
        await one(number)

    def arrived(self, number: int) -> None:
        self._took[number] = time.perf_counter() - self._sent[number]
        if len(self._took) == len(self.gaps):
            self._complete.set()

    @property
    def latencies(self) -> list[float]:
        return list(self._took.values())


async def pickup(arena: Arena, rate: int, count: int) -> Measure:
    """An idle worker and an application that enqueues, on one event loop."""
    arrivals = Arrivals(count, rate)

    async def handle(job: RunningJob) -> None:
        arrivals.arrived(job.payload["number"])

    async with Queue(arena.dsn, connections=CONNECTIONS) as queue:
        worker = Worker(queue, {"bench": handle}, concurrency=100)
        working = asyncio.create_task(worker.run(), name="worker")
        given = payloads(count)
        await _warmed_up(queue)
        async with arena.measured(count) as measure:
            await arrivals.send(
                lambda number: queue.enqueue(Job("bench", {**given[number], "number": number}))
            )
        worker.stop()
        await working
    measure.took(arrivals.latencies)
    return measure


async def _warmed_up(queue: Queue) -> None:
    """A worker that has just started is not idle yet: it registers, listens, and looks once."""
    await asyncio.sleep(1)


NOTIFY = "select pg_notify('bench', $1)"
INSERT_AND_NOTIFY = """
with stored as (
    insert into hammerwork.jobs (id, queue, state, payload) values (gen_random_uuid(), 'bare', 'blocked', '1')
    returning id
)
select pg_notify('bench', $1) from stored
"""


async def bare_notify(arena: Arena, rate: int, count: int, *, statement: str) -> Measure:
    """A statement with NOTIFY, each in a transaction of its own, from a pool, to one connection that listens.

    A NOTIFY alone flushes nothing to the disk. Something durable that is announced, which is what a job is,
    waits for the disk once before anybody may hear of it, so that is what the bar is judged by.
    """
    arrivals = Arrivals(count, rate)
    listener = await asyncpg.connect(arena.dsn)
    await listener.add_listener("bench", lambda *heard: arrivals.arrived(int(str(heard[-1]))))
    async with (
        asyncpg.create_pool(arena.dsn, max_size=CONNECTIONS) as pool,
        arena.measured(count) as measure,
    ):
        await arrivals.send(lambda number: pool.execute(statement, str(number)))
    await listener.close()
    measure.took(arrivals.latencies)
    return measure


ROWS = [
    Row(
        name="pickup",
        title="From enqueueing to the handler, jobs at random moments",
        sides=[
            Side(name="NOTIFY, 100/s", run=partial(bare_notify, rate=100, count=500, statement=NOTIFY)),
            Side(
                name="INSERT and NOTIFY, 100/s",
                run=partial(bare_notify, rate=100, count=500, statement=INSERT_AND_NOTIFY),
            ),
            Side(name="hammerwork, 1/s", run=partial(pickup, rate=1, count=10)),
            Side(name="hammerwork, 100/s", run=partial(pickup, rate=100, count=500)),
            Side(name="hammerwork, 1000/s", run=partial(pickup, rate=1000, count=4000)),
        ],
        bars=[
            Bar(metric=P50, side="hammerwork, 100/s", most=3.0),
            Bar(metric=P99, side="hammerwork, 100/s", most=10.0),
            Bar(metric=P50, side="hammerwork, 100/s", beside="INSERT and NOTIFY, 100/s", most=2.0),
        ],
        columns=(P50, P99, RATE, CLIENT_CPU, SERVER_CPU, WAL),
    )
]
