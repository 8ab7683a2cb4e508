"""The kit on NATS JetStream, in and out, through a proxy that cuts and stalls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from nats.aio.msg import Msg

from hammerwork.plugins import Json, Message
from hammerwork.plugins.conformance import (
    BridgeContract,
    BridgeHarness,
    Received,
    SinkContract,
    SinkHarness,
)
from hammerwork.plugins.nats import NatsBridge, NatsSink

from ..plugins.brokers import until
from ..plugins.nats_stream import NatsStream
from ..services import free_port
from ..services.broker import PASSWORD, USER, BrokerService
from ..services.proxy import FaultProxy


def url_at(port: int) -> str:
    return f"nats://{USER}:{PASSWORD}@127.0.0.1:{port}"


async def restarted(service: BrokerService, stream: NatsStream) -> None:
    await asyncio.to_thread(service.restart, immediate=False)

    async def back() -> bool:
        return stream.client.is_connected

    await until(back)


@dataclass(kw_only=True)
class StreamHarness(BridgeHarness):
    """A stream of the test's own, its messages with a header for everything that they carry."""

    service: BrokerService
    stream: NatsStream
    proxy: FaultProxy

    async def publish(self, messages: Sequence[Message]) -> None:
        for message in messages:
            headers = {
                "Nats-Msg-Id": message.id,
                "Key": message.key,
                "Content-Type": message.content_type,
                "Content-Encoding": message.content_encoding,
                **message.headers,
            }
            said = {name: str(value) for name, value in headers.items() if value is not None}
            await self.stream.send(message.body, said)

    async def unsettled(self) -> int:
        return await self.stream.owed()

    async def restart(self) -> None:
        await restarted(self.service, self.stream)

    async def cut(self) -> None:
        self.proxy.cut()

    async def unreachable(self) -> Mapping[str, Json]:
        return {**self.options, "url": url_at(free_port())}


class TestNatsBridge(BridgeContract):
    plugin = NatsBridge
    kind = "nats"

    @pytest.fixture
    async def harness(
        self, nats_service: BrokerService, nats_stream: NatsStream
    ) -> AsyncIterator[BridgeHarness]:
        async with FaultProxy(*nats_service.address) as proxy:
            yield StreamHarness(
                service=nats_service,
                stream=nats_stream,
                proxy=proxy,
                options={
                    "url": url_at(proxy.port),
                    "stream": nats_stream.name,
                    "key": {"header": "Key"},
                    "lease": 1,
                },
                secrets=[PASSWORD],
                lease=1.0,
            )


@dataclass(kw_only=True)
class EventsHarness(SinkHarness):
    """Hears what is published to a stream of the test's own, also what the stream drops as a repetition."""

    service: BrokerService
    stream: NatsStream
    proxy: FaultProxy
    heard: list[Received] = field(default_factory=list)

    async def listen(self) -> None:
        async def hear(message: Msg) -> None:
            event_id = (message.headers or {})["Nats-Msg-Id"]
            self.heard.append(Received(event_id=event_id, event=json.loads(message.data)))

        await self.stream.client.subscribe(f"{self.stream.name}.events", cb=hear)
        await self.stream.client.flush()

    async def received(self) -> Sequence[Received]:
        await self.stream.client.flush()
        return self.heard

    async def restart(self) -> None:
        await restarted(self.service, self.stream)
        await self.stream.client.flush()

    async def hang(self) -> None:
        self.proxy.blackhole()

    async def unreachable(self) -> Mapping[str, Json]:
        return {**self.options, "url": url_at(free_port())}


class TestNatsSink(SinkContract):
    plugin = NatsSink
    kind = "nats"

    @pytest.fixture
    async def harness(
        self, nats_service: BrokerService, nats_stream: NatsStream
    ) -> AsyncIterator[SinkHarness]:
        async with FaultProxy(*nats_service.address) as proxy:
            harness = EventsHarness(
                service=nats_service,
                stream=nats_stream,
                proxy=proxy,
                options={
                    "url": url_at(proxy.port),
                    "subject": f"{nats_stream.name}.events",
                    "timeout": 1,
                    "connect_timeout": 1,
                },
                secrets=[PASSWORD],
                answers_within=4.0,
            )
            await harness.listen()
            yield harness
