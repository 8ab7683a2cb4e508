"""A topic of a test's own on the real broker: filled by a producer, read by bridges."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from hammerwork.bridges.kafka import KafkaBridge, KafkaOptions
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake, IntakeLimits
from hammerwork.core.ingest.mapping import FieldMapping
from hammerwork.core.ingest.offsets import KeptOffsets
from hammerwork.core.message import Delivery, Fate, Receipt, Want
from hammerwork.core.postgres.database import Database

from ..services.kafka import LIGHT, KafkaService

SOON = 15.0
PROMPT = Want(wait=timedelta(milliseconds=300), linger=timedelta(0))


class Topic:
    """`made` topics only; `send` answers the record's place once the broker has it."""

    def __init__(self, service: KafkaService, producer: AIOKafkaProducer, name: str) -> None:
        self.service = service
        self.name = name
        self._producer = producer

    async def send(self, value: bytes | None = b"{}", **parts: Any) -> tuple[int, int]:
        answer = await self._producer.send_and_wait(self.name, value, **parts)
        return answer.partition, answer.offset

    async def send_nothing(self) -> None:
        """A record without key and body, which the producer's own door does not let through."""
        batch = self._producer.create_batch()
        batch.append(key=None, value=None, timestamp=None)
        await (await self._producer.send_batch(batch, self.name, partition=0))

    async def fill(self, ids: Iterable[str], *, keys: int = 8, partition: int | None = None) -> None:
        """A message {"id": …, "key": …} an id, over so many keys, in order; all are with the broker then."""
        sent = []
        for number, name in enumerate(ids):
            key = f"k{number % keys}"
            body = json.dumps({"id": name, "key": key, "n": number}).encode()
            sent.append(await self._producer.send(self.name, body, key=key.encode(), partition=partition))
        await asyncio.gather(*sent)

    def producer(self, **settings: Any) -> AIOKafkaProducer:
        """Another producer, with settings of its own."""
        return AIOKafkaProducer(bootstrap_servers=self.service.bootstrap, **settings)

    def options(self, **more: Any) -> KafkaOptions:
        """How a bridge reads it: with sessions so short that a test can outlive one."""
        given: dict[str, Any] = {
            "bootstrap": self.service.bootstrap,
            "topics": [self.name],
            "group": f"group.{self.name}",
            "session_timeout": 2,
            "fetch_wait": 0.05,
        }
        return KafkaOptions.model_validate({**given, **more})

    def bridge(self, database: Database, **more: Any) -> KafkaBridge:
        """A bridge that keeps its offsets there, for a test that takes the framework's part."""
        bridge = KafkaBridge("orders", self.options(**more))
        bridge.keep(KeptOffsets(database, "orders"))
        return bridge

    def intake(self, database: Database, limits: IntakeLimits | None = None, **more: Any) -> Intake:
        bridge = KafkaBridge("orders", self.options(**more))
        return Intake(database, bridge, Decoder(), FieldMapping(queue="work"), limits, kind="kafka")


@asynccontextmanager
async def topic_on(service: KafkaService, partitions: int = 1, **settings: str) -> AsyncIterator[Topic]:
    if not service.apache:
        pytest.skip(LIGHT)
    name = f"test.{secrets.token_hex(6)}"
    await service.create_topic(name, partitions, **settings)
    async with AIOKafkaProducer(
        bootstrap_servers=service.bootstrap, acks="all", max_request_size=16 * 1024 * 1024
    ) as producer:
        yield Topic(service, producer, name)
    await service.delete_topic(name)


async def pull_all(bridge: KafkaBridge, count: int, want: Want = PROMPT) -> list[Delivery]:
    """Pull until so many deliveries have come, or fail."""
    found: list[Delivery] = []
    end = time.monotonic() + SOON
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} came within {SOON:g} s"
        found += await bridge.pull(want)
    return found


def stored(deliveries: Iterable[Delivery]) -> list[Receipt]:
    return [Receipt(delivery, Fate.STORED) for delivery in deliveries]


async def until(condition: Callable[[], Awaitable[bool]], what: str, within: float = SOON) -> None:
    end = time.monotonic() + within
    while not await condition():
        assert time.monotonic() < end, f"not within {within:g} s: {what}"
        await asyncio.sleep(0.02)


async def kept(database: Database) -> dict[str, int | None]:
    """Where Postgres says that the bridge's partitions go on."""
    rows = await database.fetch("list_offsets", "orders")
    return {row["partition"]: row["next_offset"] for row in rows}


async def pull_until_error(bridge: KafkaBridge) -> None:
    """Pull, for what it raises, for as long as SOON."""
    end = time.monotonic() + SOON
    while time.monotonic() < end:
        await bridge.pull(PROMPT)
