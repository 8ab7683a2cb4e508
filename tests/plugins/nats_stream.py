"""A plain NATS client for the tests of the NATS plugin: it publishes anything, and looks at what is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import nats
from nats.aio.client import Client
from nats.js.api import ConsumerInfo

from hammerwork.plugins.nats import NatsOptions


class NatsStream:
    """A stream of the test's own with the subjects `name.>`, deleted at the end."""

    def __init__(self, url: str, name: str, client: Client) -> None:
        self.url = url
        self.name = name
        self.client = client
        self.js = client.jetstream()

    @classmethod
    async def make(cls, url: str, name: str) -> Self:
        client = await nats.connect(url, reconnect_time_wait=0.1, max_reconnect_attempts=-1)
        stream = cls(url, name, client)
        await stream.js.add_stream(name=name, subjects=[f"{name}.>"])
        return stream

    async def send(self, body: bytes = b"{}", headers: Mapping[str, str] | None = None) -> int:
        """The sequence that the message has."""
        answer = await self.js.publish(f"{self.name}.new", body, headers=dict(headers or {}) or None)
        return int(answer.seq)

    async def consumer(self) -> ConsumerInfo:
        info: ConsumerInfo = await self.js.consumer_info(self.name, "hammerwork")
        return info

    async def owed(self) -> int:
        """How many messages are not acknowledged yet, sent or not."""
        info = await self.consumer()
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    def options(self, **settings: Any) -> NatsOptions:
        return NatsOptions.model_validate({"url": self.url, "stream": self.name} | settings)

    async def close(self) -> None:
        await self.js.delete_stream(self.name)
        await self.client.close()
