"""The demo's Kafka: orders published to a topic, and the stream of events read back as a consumer sees it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from .parts import Parcel

ORDERS, EVENTS = "orders", "job-events"
READ_WITHIN = 20.0
"""Seconds for the stream's last events after the last webhook."""


async def publish_kafka(bootstrap: str, messages: Sequence[Parcel], rate: int) -> None:
    """Publish to the topic of orders, about `rate` a second; what a record is stands in its header `id`."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        for start in range(0, len(messages), rate // 10):
            sent = [
                await producer.send(
                    ORDERS, parcel.body, key=parcel.id.encode(), headers=[("id", parcel.id.encode())]
                )
                for parcel in messages[start : start + rate // 10]
            ]
            await asyncio.gather(*sent)
            await asyncio.sleep(0.1)
    finally:
        await producer.stop()


async def read_events(bootstrap: str, expected: int) -> Counter[str]:
    """How often each job is told of in the topic of events, by who reads committed records only."""
    consumer = AIOKafkaConsumer(
        EVENTS,
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    told: Counter[str] = Counter()
    try:
        async with asyncio.timeout(READ_WITHIN):
            while len(told) < expected:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    told.update(json.loads(record.value)["data"]["job_id"] for record in records)
    except TimeoutError:
        pass  # the sum will say what is missing
    finally:
        await consumer.stop()
    return told
