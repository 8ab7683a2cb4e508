"""The queue beside bare Postgres: the same rows by COPY, by INSERT, and by the same SQL without Python."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta

import asyncpg

from hammerwork.core.execute.worker import Worker
from hammerwork.core.identity import new_id
from hammerwork.core.job import Job
from hammerwork.core.postgres.database import columns, statement
from hammerwork.core.queue import Queue

from .measure import Measure, Row, measured

JOBS = 30_000
SINGLES = 4_000
PAYLOAD = {"order": 4711, "text": "x" * 120}
PAYLOAD_TEXT = '{"order":4711,"text":"' + "x" * 120 + '"}'
CONNECTIONS = 8


async def bulk_enqueue(dsn: str) -> Measure:
    async with Queue(dsn) as queue, measured(dsn, JOBS) as measure:
        await queue.enqueue_many([Job("bench", PAYLOAD) for _ in range(JOBS)])
    return measure


async def bare_copy(dsn: str) -> Measure:
    """asyncpg's binary COPY of the same columns, 1000 rows at a time."""
    connection = await asyncpg.connect(dsn)
    names = ["id", "queue", "state", "payload", "max_attempts", "result_ttl"]
    day = timedelta(days=1)
    async with measured(dsn, JOBS) as measure:
        for _ in range(JOBS // 1000):
            rows = [(new_id(), "bench", "available", PAYLOAD_TEXT, 5, day) for _ in range(1000)]
            await connection.copy_records_to_table(
                "jobs", schema_name="hammerwork", records=rows, columns=names
            )
    await connection.close()
    return measure


async def single_enqueues(dsn: str) -> Measure:
    """One job a call, from 8 tasks at once."""
    async with Queue(dsn, connections=CONNECTIONS) as queue:

        async def produce() -> None:
            for _ in range(SINGLES // CONNECTIONS):
                await queue.enqueue(Job("bench", PAYLOAD))

        async with measured(dsn, SINGLES) as measure:
            await asyncio.gather(*(produce() for _ in range(CONNECTIONS)))
    return measure


async def bare_inserts(dsn: str) -> Measure:
    """One INSERT a round trip, from 8 connections at once."""

    async def produce(connection: asyncpg.Connection) -> None:
        for _ in range(SINGLES // CONNECTIONS):
            await connection.execute(
                "insert into hammerwork.jobs (id, queue, state, payload) values ($1, $2, $3, $4)",
                new_id(),
                "bench",
                "available",
                PAYLOAD_TEXT,
            )

    connections = [await asyncpg.connect(dsn) for _ in range(CONNECTIONS)]
    async with measured(dsn, SINGLES) as measure:
        await asyncio.gather(*map(produce, connections))
    for connection in connections:
        await connection.close()
    return measure


async def drain(dsn: str) -> Measure:
    """A worker with a no-op handler empties a full queue: fenced, with history, durable."""
    async with Queue(dsn) as queue:
        await queue.enqueue_many([Job("bench", PAYLOAD) for _ in range(JOBS)])
        ended = itertools.count(1)

        async def handle(_job: object) -> None:
            if next(ended) == JOBS:
                worker.stop()

        worker = Worker(queue, {"bench": handle}, concurrency=100)
        async with measured(dsn, JOBS) as measure:
            await worker.run()
    return measure


async def bare_drain(dsn: str) -> Measure:
    """The same claim and finish statements in a loop on one connection, 500 at a time, no handlers."""
    async with Queue(dsn) as queue:
        await queue.enqueue_many([Job("bench", PAYLOAD) for _ in range(JOBS)])
    connection = await asyncpg.connect(dsn)
    worker = new_id()
    await connection.fetch(
        statement("register_worker"), worker, "bench", 0, ["bench"], 500, timedelta(minutes=10)
    )
    async with measured(dsn, JOBS) as measure:
        while rows := await connection.fetch(statement("claim"), ["bench"], [500], 500, worker):
            finishes = [
                (row["id"], row["lease"], "completed", None, None, None, None, timedelta(0), row["id"])
                for row in rows
            ]
            await connection.fetch(statement("finish"), worker, *columns(finishes, 9))
    await connection.close()
    return measure


ROWS = [
    Row(name="enqueue", ours=bulk_enqueue, limit=bare_copy, limit_is="COPY, 1000 a batch", bar=0.85),
    Row(
        name="enqueue-single",
        ours=single_enqueues,
        limit=bare_inserts,
        limit_is="INSERT, 8 connections",
        bar=0.9,
    ),
    Row(name="drain", ours=drain, limit=bare_drain, limit_is="the same SQL, no Python a job", bar=0.75),
]
