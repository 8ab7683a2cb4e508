"""A plain RabbitMQ client for the bridge's tests: it sends anything, and looks at what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from aiormq import spec
from aiormq.abc import AbstractChannel

from hammerwork.bridges.rabbitmq import RabbitmqOptions
from hammerwork.core.errors import Disconnected
from hammerwork.core.message import Bridge, Delivery, Fate, Message, Receipt, Want

SOON = Want(wait=timedelta(milliseconds=300), linger=timedelta(milliseconds=50))
PERSISTENT = 2


@dataclass
class Producer:
    """A plain client of the test's own queue."""

    channel: AbstractChannel
    queue: str
    url: str

    async def send(self, body: bytes = b"{}", *, to: str | None = None, **properties: Any) -> None:
        await self.send_raw(body, spec.Basic.Properties(delivery_mode=PERSISTENT, **properties), to=to)

    async def send_raw(
        self, body: bytes, properties: spec.Basic.Properties, *, to: str | None = None, exchange: str = ""
    ) -> None:
        await self.channel.basic_publish(
            body, exchange=exchange, routing_key=to or self.queue, properties=properties
        )

    async def ready(self) -> int:
        """How many messages wait in the queue, those that somebody holds not counted."""
        declared = await self.channel.queue_declare(self.queue, passive=True)
        return declared.message_count or 0

    def options(self, **settings: Any) -> RabbitmqOptions:
        return RabbitmqOptions.model_validate({"url": self.url, "queue": self.queue} | settings)


class WireProperties(spec.Basic.Properties):
    """Properties as bytes: what a producer in another language can send and this client would not."""

    def __init__(self, wire: bytes) -> None:
        super().__init__(message_id="not sent")
        object.__setattr__(self, "_wire", wire)

    def marshal(self) -> bytes:
        return bytes(object.__getattribute__(self, "_wire"))


class WireKey(str):
    """A routing key that is not UTF-8."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"\xff\xfe"


async def pull_all(bridge: Bridge, count: int, want: Want = SOON) -> list[Delivery]:
    """Exactly `count` deliveries, over as many pulls as it takes."""
    taken: list[Delivery] = []
    async with asyncio.timeout(20):
        while len(taken) < count:
            taken += await bridge.pull(want)
    assert len(taken) == count
    return taken


async def pull_one(bridge: Bridge) -> Message:
    [delivery] = await pull_all(bridge, 1)
    return delivery.message


def stored(deliveries: Sequence[Delivery]) -> list[Receipt]:
    return [Receipt(delivery, Fate.STORED) for delivery in deliveries]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Poll what only the broker knows, for ten seconds at most."""
    for _ in range(500):
        if await condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail("the condition did not come true within ten seconds")


async def ready_is(producer: Producer, count: int) -> None:
    async def reached() -> bool:
        return await producer.ready() == count

    await until(reached)


async def disconnected(bridge: Bridge) -> Disconnected:
    """The error by which a bridge says that its broker is gone, within a few pulls."""
    async with asyncio.timeout(20):
        while True:
            try:
                await bridge.pull(SOON)
            except Disconnected as error:
                return error
