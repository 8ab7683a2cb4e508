"""RabbitMQ to committed jobs to acknowledged, beside a bare client that acknowledges and does nothing."""

from __future__ import annotations

import asyncio
import secrets
from functools import partial

import aio_pika
import aiormq
from aiormq.abc import DeliveredMessage

from hammerwork.bridges.rabbitmq import RabbitmqBridge, RabbitmqOptions
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake
from hammerwork.core.ingest.mapping import FieldMapping
from hammerwork.core.postgres.database import Database

from .measure import Measure, Row, measured
from .postgres_rows import PAYLOAD_TEXT

MESSAGES = 20_000
PREFETCH = 2000
POLL = 0.005


async def ingest(url: str, dsn: str) -> Measure:
    """Inbox, jobs and acknowledgements, in batches of 500."""
    queue = await _filled(url)
    database = Database(dsn)
    options = RabbitmqOptions.model_validate({"url": url, "queue": queue, "prefetch": PREFETCH})
    bridge = RabbitmqBridge("bench", options)
    intake = Intake(database, bridge, Decoder(), FieldMapping("bench"))
    async with measured(dsn, MESSAGES) as measure:
        running = asyncio.create_task(intake.run(), name="intake")
        while intake.counts.received < MESSAGES:  # noqa: ASYNC110 - counted, not signalled
            await asyncio.sleep(POLL)
    intake.stop()
    await running
    await database.close()
    await _remove(url, queue)
    return measure


async def bare_consumer(url: str, dsn: str) -> Measure:
    """aiormq consuming with the same prefetch and acknowledging 500 at a time."""
    queue = await _filled(url)
    connection = await aiormq.connect(url)
    channel = await connection.channel()
    await channel.basic_qos(prefetch_count=PREFETCH)
    received, complete = 0, asyncio.Event()

    async def consume(message: DeliveredMessage) -> None:
        nonlocal received
        received += 1
        if received % 500 == 0 or received == MESSAGES:
            await channel.basic_ack(message.delivery_tag or 0, multiple=True)
        if received == MESSAGES:
            complete.set()

    async with measured(dsn, MESSAGES) as measure:
        await channel.basic_consume(queue, consume)
        await complete.wait()
    await connection.close()
    await _remove(url, queue)
    return measure


async def _filled(url: str) -> str:
    name = f"bench-{secrets.token_hex(4)}"
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(name, durable=True)
        for start in range(0, MESSAGES, 1000):
            await asyncio.gather(
                *(
                    channel.default_exchange.publish(
                        aio_pika.Message(
                            PAYLOAD_TEXT.encode(),
                            message_id=str(start + n),
                            content_type="application/json",
                            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                        ),
                        routing_key=name,
                    )
                    for n in range(1000)
                )
            )
    return name


async def _remove(url: str, queue: str) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.queue_delete(queue)


def rows(url: str) -> list[Row]:
    """The rows that need a broker, at this URL."""
    return [
        Row(
            name="rabbitmq-ingest",
            ours=partial(ingest, url),
            limit=partial(bare_consumer, url),
            limit_is="aiormq, consume and ack only",
            bar=0.85,
        )
    ]
