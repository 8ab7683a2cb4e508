"""Events from the log to Kafka, in the order of their jobs, beside a bare producer of the same records."""

from __future__ import annotations

import asyncio
import secrets

import asyncpg
from aiokafka import AIOKafkaProducer

from hammerwork.core.event import EventType, LoggedEvent
from hammerwork.core.postgres.database import Database
from hammerwork.core.publish.log_relay import LogRelay
from hammerwork.core.publish.relay import Subscription
from hammerwork.sinks.kafka import KafkaSink, KafkaSinkOptions

from ..arena import Arena
from ..measure import RATE, Measure
from ..row import Bar, Row, Side
from ..stages import migrated

JOBS, EACH = 20_000, 3
EVENTS = JOBS * EACH
PARTITIONS = 4
WANTED = Subscription(name="bench", types=frozenset(EventType), from_log=True)


async def logged(dsn: str) -> None:
    """The lives of so many jobs in the log, and a sink before its first event."""
    await migrated(dsn)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "insert into hammerwork.sinks (name, kind, types) values ('bench', 'kafka', $1)",
            sorted(WANTED.types),
        )
        for sequence, type in enumerate(("job.enqueued", "job.started", "job.completed"), 1):
            await connection.execute(
                """
                insert into hammerwork.events (job_id, sequence, type, queue, data)
                select md5(n::text)::uuid, $2, $3, 'bench',
                       jsonb_build_object('attempt', 1, 'correlation_id', null, 'ran_ms', n,
                                          'text', md5(n::text))
                from generate_series(1, $1) as n
                """,
                JOBS, sequence, type,
            )  # fmt: skip
        await connection.execute("vacuum (analyze) hammerwork.events")
    finally:
        await connection.close()


async def stream(arena: Arena) -> Measure:
    """A log relay and its sink, as the gateway runs them, one process."""
    options = KafkaSinkOptions(bootstrap=(arena.kafka.bootstrap,), topic=await _topic(arena))
    async with Database(arena.dsn) as database:
        relay = LogRelay(database, WANTED, KafkaSink("bench", options), kind="kafka")
        async with arena.measured(EVENTS) as measure:
            running = asyncio.create_task(relay.run(), name="relay")
            while relay.counts.taken < EVENTS:  # noqa: ASYNC110 - counted, not signalled
                await asyncio.sleep(0.005)
            relay.stop()
            await running
    return measure


async def bare(arena: Arena) -> Measure:
    """aiokafka's producer with the sink's settings; the records are made beforehand."""
    topic = await _topic(arena)
    records = await _records(arena.dsn)
    options = KafkaSinkOptions(bootstrap=(arena.kafka.bootstrap,), topic=topic)
    headers = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
    async with (
        arena.measured(EVENTS) as measure,
        AIOKafkaProducer(
            bootstrap_servers=arena.kafka.bootstrap,
            enable_idempotence=True,
            max_batch_size=int(options.batch_bytes),
        ) as producer,
    ):
        for key, value, at in records:
            await producer.send(topic, value, key=key, timestamp_ms=at, headers=headers)
        await producer.flush()
    return measure


async def _records(dsn: str) -> list[tuple[bytes, bytes, int]]:
    """Key, value and time of every event, as the sink would write them."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "select id, xid::text, event_id, job_id, sequence, type, queue, data::text, at, false"
            " from hammerwork.events order by xid, id"
        )
    finally:
        await connection.close()
    events = [LoggedEvent._make((*row, WANTED.source)) for row in rows]
    return [(str(e.job_id).encode(), e.cloud_event().encode(), int(e.at.timestamp() * 1000)) for e in events]


async def _topic(arena: Arena) -> str:
    name = f"bench-{secrets.token_hex(4)}"
    await arena.kafka.create_topic(name, partitions=PARTITIONS)
    return name


ROWS = [
    Row(
        name="kafka-sink",
        title="Events from the log to Kafka, one process",
        sides=[
            Side(name="aiokafka", run=bare, stage=logged),
            Side(name="hammerwork", run=stream, stage=logged),
        ],
        bars=[Bar(metric=RATE, beside="aiokafka", least=0.8)],
    )
]
