"""Kafka to committed jobs, beside a bare consumer whose records go into the same table by COPY, in turn."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from hammerwork.bridges.kafka import KafkaBridge, KafkaOptions
from hammerwork.core.identity import new_id
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake
from hammerwork.core.ingest.mapping import FieldMapping
from hammerwork.core.postgres.database import Database

from ...services.kafka import KafkaService
from ..arena import Arena
from ..measure import RATE, Measure
from ..payloads import encoded, payloads
from ..row import Bar, Row, Side

MESSAGES = 60_000
PARTITIONS = 4
BATCH = 500
COLUMNS = ("id", "queue", "state", "payload")


async def ingest(arena: Arena) -> Measure:
    """Offsets and jobs in one transaction, in batches of at most 500, one process."""
    async with _filled(arena.kafka) as topic, Database(arena.dsn) as database:
        options = KafkaOptions(bootstrap=(arena.kafka.bootstrap,), topics=(topic,))
        intake = Intake(database, KafkaBridge("bench", options), Decoder(), FieldMapping("bench"))
        async with arena.measured(MESSAGES) as measure:
            running = asyncio.create_task(intake.run(), name="intake")
            while intake.counts.received < MESSAGES:  # noqa: ASYNC110 - counted, not signalled
                await asyncio.sleep(0.005)
        intake.stop()
        await running
    return measure


async def bare(arena: Arena) -> Measure:
    """aiokafka reads 500 records, asyncpg copies them among the jobs, and so on; a commit a second."""
    async with _filled(arena.kafka) as topic:
        connection = await asyncpg.connect(arena.dsn)
        received = 0
        async with (
            arena.measured(MESSAGES) as measure,
            AIOKafkaConsumer(
                topic,
                bootstrap_servers=arena.kafka.bootstrap,
                group_id=topic,
                auto_offset_reset="earliest",
                auto_commit_interval_ms=1000,
            ) as consumer,
        ):
            while received < MESSAGES:
                found = await consumer.getmany(timeout_ms=1000, max_records=BATCH)
                rows = [
                    (new_id(), "bench", "available", record.value.decode())
                    for batch in found.values()
                    for record in batch
                ]
                await connection.copy_records_to_table(
                    "jobs", schema_name="hammerwork", columns=COLUMNS, records=rows
                )
                received += len(rows)
        await connection.close()
    return measure


@asynccontextmanager
async def _filled(service: KafkaService) -> AsyncIterator[str]:
    """A topic that holds all the messages; its name."""
    name = f"bench-{secrets.token_hex(4)}"
    await service.create_topic(name, PARTITIONS)
    async with AIOKafkaProducer(
        bootstrap_servers=service.bootstrap, acks="all", linger_ms=5, max_batch_size=65_536
    ) as producer:
        bodies = [encoded(payload).encode() for payload in payloads(MESSAGES)]
        for start in range(0, MESSAGES, 5000):
            sent = [
                await producer.send(name, bodies[n], key=b"k%d" % (n % 1000))
                for n in range(start, start + 5000)
            ]
            await asyncio.gather(*sent)
    yield name
    await service.delete_topic(name)


ROWS = [
    Row(
        name="kafka-ingest",
        title="Kafka to committed jobs, one process",
        sides=[
            Side(name="aiokafka, then COPY", run=bare),
            Side(name="hammerwork", run=ingest),
        ],
        bars=[Bar(metric=RATE, beside="aiokafka, then COPY", least=0.5)],
    )
]
