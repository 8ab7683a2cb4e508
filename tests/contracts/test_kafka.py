"""The kit on the Kafka bridge: a topic of three partitions, on Apache Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from hammerwork.bridges.kafka import KafkaBridge
from hammerwork.plugins import Bridge, Json, Message
from hammerwork.plugins.conformance import BridgeContract, BridgeHarness

from ..services.kafka import KafkaService
from .kafka_place import PARTITIONS, KafkaPlace, kafka_place
from .log_spool import READ

LARGEST = 4 * 1024 * 1024


@dataclass(kw_only=True)
class KafkaHarness(BridgeHarness):
    """A topic of the test's own. What is owed is what Postgres' offsets have not passed."""

    place: KafkaPlace
    dsn: str
    bridge: str = ""

    def attach(self, bridge: Bridge) -> None:
        self.bridge = bridge.name

    async def publish(self, messages: Sequence[Message]) -> None:
        async with AIOKafkaProducer(
            bootstrap_servers=self.place.service.bootstrap, acks="all", max_request_size=LARGEST
        ) as producer:
            sent = [await producer.send(self.place.topic, **_record(message)) for message in messages]
            for answer in sent:
                await answer

    async def unsettled(self) -> int:
        connection = await asyncpg.connect(self.dsn)
        try:
            read: int = await connection.fetchval(READ, self.bridge)
        finally:
            await connection.close()
        async with AIOKafkaConsumer(bootstrap_servers=self.place.service.bootstrap) as consumer:
            ends = await consumer.end_offsets(
                [TopicPartition(self.place.topic, number) for number in range(PARTITIONS)]
            )
        return int(sum(ends.values()) - read)

    async def restart(self) -> None:
        await self.place.restart()

    async def unreachable(self) -> Mapping[str, Json]:
        return {**self.options, **self.place.nowhere()}


def _record(message: Message) -> dict[str, object]:
    headers = {name: str(value) for name, value in message.headers.items()}
    if message.content_type is not None:
        headers["content-type"] = message.content_type
    return {
        "value": message.body,
        "key": None if message.key is None else message.key.encode(),
        "headers": [(name, value.encode()) for name, value in headers.items()],
        "timestamp_ms": None if message.timestamp is None else int(message.timestamp.timestamp() * 1000),
    }


class TestKafka(BridgeContract):
    plugin = KafkaBridge
    kind = "kafka"

    @pytest.fixture
    async def harness(self, kafka_service: KafkaService, dsn: str) -> AsyncIterator[BridgeHarness]:
        async with kafka_place(kafka_service, max_message_bytes=str(LARGEST)) as place:
            yield KafkaHarness(
                options={
                    **place.options,
                    "topics": [place.topic],
                    "group": f"group.{place.topic}",
                    "session_timeout": 2,
                    "fetch_wait": 0.05,
                },
                secrets=place.secrets,
                place=place,
                dsn=dsn,
            )
