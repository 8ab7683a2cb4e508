"""A producer whose word can be taken: a message counts as published once the broker has confirmed it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiormq
from aiormq import spec
from aiormq.abc import AbstractChannel, AbstractConnection

from ..bridges.rabbitmq_producer import WireProperties

PERSISTENT = 2
POISON = b'{"id": '


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is published under one id, once or more often."""

    id: str
    body: bytes
    poison: bool = False


def parcels(ids: Iterable[str], *, poison_every: int = 0) -> list[Parcel]:
    """A message an id; each `poison_every`-th of them is not JSON."""
    made = []
    for number, key in enumerate(ids, 1):
        poison = bool(poison_every) and number % poison_every == 0
        made.append(Parcel(key, POISON if poison else json.dumps({"id": key}).encode(), poison))
    return made


def with_repeats(given: Sequence[Parcel], share: float, seed: int) -> list[Parcel]:
    """The same in order, and a share of them a second time, somewhere later."""
    dice = random.Random(seed)
    stream = list(given)
    for parcel in dice.sample(stream, int(len(stream) * share)):
        stream.insert(dice.randrange(stream.index(parcel), len(stream)) + 1, parcel)
    return stream


def message_properties(**properties: Any) -> spec.Basic.Properties:
    """Exactly these properties, persistent; the client would give a message without an id one of its own."""
    made = spec.Basic.Properties(delivery_mode=PERSISTENT, **properties)
    return made if properties.get("message_id") else WireProperties(made.marshal())


class Publisher:
    """Publishes to one queue with publisher confirms, reconnecting for as long as it is told to."""

    def __init__(self, url: str, queue: str) -> None:
        self.queue = queue
        self._url = url
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None

    async def channel(self) -> AbstractChannel:
        if self._channel is None:
            self._connection = aiormq.Connection(self._url)
            await self._connection.connect()
            self._channel = await self._connection.channel(publisher_confirms=True)
        return self._channel

    async def publish(self, parcel: Parcel) -> None:
        """Until the broker confirms it; raises what the client raises."""
        await self.send(parcel.body, message_id=parcel.id, headers={"id": parcel.id})

    async def send(self, body: bytes, **properties: Any) -> None:
        channel = await self.channel()
        await channel.basic_publish(
            body,
            routing_key=self.queue,
            properties=message_properties(**properties),
            timeout=5,
        )

    async def publish_all(self, stream: Sequence[Parcel]) -> None:
        for start in range(0, len(stream), 100):
            await asyncio.gather(*(self.publish(parcel) for parcel in stream[start : start + 100]))

    async def insist(self, parcel: Parcel) -> None:
        """Publish it again and again, under the same id, until the broker has confirmed it once."""
        while True:
            try:
                await self.publish(parcel)
                return
            except (aiormq.AMQPError, aiormq.exceptions.ChannelInvalidStateError, OSError, RuntimeError):
                await self.close()
            except asyncio.CancelledError:
                # The client rejects what is pending on a dying connection by cancelling it.
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                await self.close()
            await asyncio.sleep(0.1)

    async def waiting(self) -> int:
        """Messages that wait in the queue; those that a consumer holds are not counted."""
        declared = await (await self.channel()).queue_declare(self.queue, passive=True)
        return declared.message_count or 0

    async def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            try:
                await connection.close()
            except (aiormq.AMQPError, OSError, RuntimeError):
                return
