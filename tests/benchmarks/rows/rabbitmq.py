"""RabbitMQ to committed jobs to acknowledged, beside bare clients that acknowledge and do nothing."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
import aiormq
from aiormq.abc import DeliveredMessage

from hammerwork.bridges.rabbitmq import RabbitmqBridge, RabbitmqOptions
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake
from hammerwork.core.ingest.mapping import FieldMapping
from hammerwork.core.postgres.database import Database

from ..arena import Arena
from ..measure import RATE, Measure
from ..payloads import encoded, payloads
from ..row import Bar, Row, Side

MESSAGES = 30_000
PREFETCH = 2000
BATCH = 500


async def ingest(arena: Arena) -> Measure:
    """Inbox, jobs and acknowledgements, in batches of at most 500, one process."""
    async with _filled(arena.broker_url) as queue, Database(arena.dsn) as database:
        options = RabbitmqOptions.model_validate(
            {"url": arena.broker_url, "queue": queue, "prefetch": PREFETCH}
        )
        intake = Intake(database, RabbitmqBridge("bench", options), Decoder(), FieldMapping("bench"))
        async with arena.measured(MESSAGES) as measure:
            running = asyncio.create_task(intake.run(), name="intake")
            while intake.counts.received < MESSAGES:  # noqa: ASYNC110 - counted, not signalled
                await asyncio.sleep(0.005)
        intake.stop()
        await running
    return measure


async def bare_aiormq(arena: Arena) -> Measure:
    """aiormq with the same prefetch, acknowledging 500 at a time."""
    async with _filled(arena.broker_url) as queue:
        connection = await aiormq.connect(arena.broker_url)
        channel = await connection.channel()
        await channel.basic_qos(prefetch_count=PREFETCH)
        received, complete = 0, asyncio.Event()

        async def consume(message: DeliveredMessage) -> None:
            nonlocal received
            received += 1
            if received % BATCH == 0 or received == MESSAGES:
                await channel.basic_ack(message.delivery_tag or 0, multiple=True)
            if received == MESSAGES:
                complete.set()

        async with arena.measured(MESSAGES) as measure:
            await channel.basic_consume(queue, consume)
            await complete.wait()
        await connection.close()
    return measure


async def bare_aio_pika(arena: Arena) -> Measure:
    """aio-pika, the client that applications use, in the same way."""
    async with _filled(arena.broker_url) as name, await aio_pika.connect(arena.broker_url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.get_queue(name)
        received, complete = 0, asyncio.Event()

        async def consume(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            nonlocal received
            received += 1
            if received % BATCH == 0 or received == MESSAGES:
                await message.ack(multiple=True)
            if received == MESSAGES:
                complete.set()

        async with arena.measured(MESSAGES) as measure:
            await queue.consume(consume)
            await complete.wait()
    return measure


@asynccontextmanager
async def _filled(url: str) -> AsyncIterator[str]:
    """A durable queue that holds all the messages, each persistent and with an id; its name."""
    name = f"bench-{secrets.token_hex(4)}"
    bodies = [encoded(payload).encode() for payload in payloads(MESSAGES)]
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(name, durable=True)
        for start in range(0, MESSAGES, 1000):
            await asyncio.gather(
                *(
                    channel.default_exchange.publish(
                        aio_pika.Message(
                            bodies[number],
                            message_id=str(number),
                            content_type="application/json",
                            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                        ),
                        routing_key=name,
                    )
                    for number in range(start, start + 1000)
                )
            )
        yield name
        await channel.queue_delete(name)


ROWS = [
    Row(
        name="rabbitmq-ingest",
        title="RabbitMQ to committed jobs to acknowledged, one process",
        sides=[
            Side(name="aiormq", run=bare_aiormq),
            Side(name="aio-pika", run=bare_aio_pika),
            Side(name="hammerwork", run=ingest),
        ],
        bars=[Bar(metric=RATE, beside="aiormq", least=0.85)],
    )
]
