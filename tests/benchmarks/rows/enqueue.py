"""Enqueueing, in bulk beside COPY and one by one beside INSERT, all from the same payloads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import asyncpg

from hammerwork.core.identity import new_id
from hammerwork.core.job import Job, Json
from hammerwork.core.queue import Queue

from ..arena import Arena
from ..measure import RATE, Measure
from ..payloads import encoded, payloads
from ..peers import PEERS
from ..row import Bar, Row, Side

JOBS = 50_000
BATCH = 1000
SINGLES = 5_000
CONNECTIONS = 8


async def bulk(arena: Arena) -> Measure:
    async with Queue(arena.dsn) as queue:
        given = payloads(JOBS)
        async with arena.measured(JOBS) as measure:
            await queue.enqueue_many([Job("bench", payload) for payload in given])
    return measure


async def bare_copy(arena: Arena) -> Measure:
    """asyncpg's binary COPY of the same rows, a thousand at a time, each with an id and its JSON text."""
    connection = await asyncpg.connect(arena.dsn)
    given = payloads(JOBS)
    async with arena.measured(JOBS) as measure:
        for start in range(0, JOBS, BATCH):
            await connection.copy_records_to_table(
                "jobs",
                schema_name="hammerwork",
                columns=["id", "queue", "state", "payload"],
                records=[
                    (new_id(), "bench", "available", encoded(payload))
                    for payload in given[start : start + BATCH]
                ],
            )
    await connection.close()
    return measure


async def singles(arena: Arena) -> Measure:
    """One job a call, from 8 tasks at once."""
    async with Queue(arena.dsn, connections=CONNECTIONS) as queue:

        async def enqueue(payload: Json) -> None:
            await queue.enqueue(Job("bench", payload))

        return await _from_many_tasks(arena, [enqueue] * CONNECTIONS)


async def bare_inserts(arena: Arena) -> Measure:
    """One INSERT a round trip, from 8 connections at once."""
    connections = [await asyncpg.connect(arena.dsn) for _ in range(CONNECTIONS)]

    def inserting(connection: asyncpg.Connection) -> Callable[[Json], Awaitable[None]]:
        async def insert(payload: Json) -> None:
            await connection.execute(
                "insert into hammerwork.jobs (id, queue, state, payload) values ($1, $2, $3, $4)",
                new_id(),
                "bench",
                "available",
                encoded(payload),
            )

        return insert

    measure = await _from_many_tasks(arena, [inserting(connection) for connection in connections])
    for connection in connections:
        await connection.close()
    return measure


async def _from_many_tasks(arena: Arena, stores: list[Callable[[Json], Awaitable[None]]]) -> Measure:
    latencies = []

    async def produce(store: Callable[[Json], Awaitable[None]], share: list[Json]) -> None:
        for payload in share:
            started = time.perf_counter()
            await store(payload)
            latencies.append(time.perf_counter() - started)

    given = payloads(SINGLES)
    async with arena.measured(SINGLES) as measure:
        await asyncio.gather(
            *(produce(store, given[task :: len(stores)]) for task, store in enumerate(stores))
        )
    measure.took(latencies)
    return measure


ROWS = [
    Row(
        name="enqueue",
        title="Enqueue in bulk, 50,000 jobs",
        sides=[
            Side(name="COPY", run=bare_copy),
            Side(name="hammerwork", run=bulk),
            *(peer.enqueueing for peer in PEERS),
        ],
        bars=[Bar(metric=RATE, beside="COPY", least=0.85)],
    ),
    Row(
        name="enqueue-single",
        title="Enqueue one by one, from 8 tasks",
        sides=[Side(name="INSERT", run=bare_inserts), Side(name="hammerwork", run=singles)],
        bars=[Bar(metric=RATE, beside="INSERT", least=0.9)],
    ),
]
