"""What a consumer of a topic sees."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition


async def read_topic(bootstrap: str, topic: str, *, isolation: str = "read_committed") -> list[Any]:
    """All records of a topic up to its present end, by partition. Transactions that are being ended are
    waited for."""
    async with _consumer(bootstrap, "read_uncommitted") as consumer:
        places = [TopicPartition(topic, number) for number in await _partitions(consumer, topic)]
        ends = await consumer.end_offsets(places)
    async with _consumer(bootstrap, isolation) as consumer:
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        records = []
        async with asyncio.timeout(20):
            while any([await consumer.position(place) < ends[place] for place in places]):
                for found in (await consumer.getmany(timeout_ms=50)).values():
                    records += found
        return records


def _consumer(bootstrap: str, isolation: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=isolation,
    )


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> list[int]:
    await consumer._client._wait_on_metadata(topic)
    return sorted(consumer.partitions_for_topic(topic) or ())
