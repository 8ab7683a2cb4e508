"""The kit on NATS JetStream, in and out, through a proxy that cuts and stalls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy

from hammerwork.plugins import Message
from hammerwork.plugins.conformance import (
    BridgeContract,
    BridgeHarness,
    LogSinkContract,
    Received,
    SinkHarness,
)
from hammerwork.plugins.nats import NatsBridge, NatsSink

from ..plugins.brokers import until
from ..plugins.nats_stream import NatsStream
from ..services.broker import PASSWORD, BrokerService
from ..services.proxy import FaultProxy
from .served import Served, url_at


@dataclass(kw_only=True)
class OfStream(Served):
    """A stream of the test's own."""

    stream: NatsStream

    async def restart(self) -> None:
        """In good order, until the test's own client reaches the stream again."""
        await asyncio.to_thread(self.service.restart, immediate=False)

        async def back() -> bool:
            try:
                return bool(await self.stream.js.stream_info(self.stream.name))
            except (NatsError, TimeoutError):
                return False

        await until(back)


@dataclass(kw_only=True)
class StreamHarness(OfStream, BridgeHarness):
    """A stream of the test's own, its messages with a header for everything that they carry."""

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
                    "url": url_at(nats_service, proxy.port),
                    "stream": nats_stream.name,
                    "key": {"header": "Key"},
                    "lease": 1,
                },
                secrets=[PASSWORD],
                lease=1.0,
            )


@dataclass(kw_only=True)
class EventsHarness(OfStream, SinkHarness):
    """A stream of the test's own, and ears for its answers: what it drops as a repetition is not in it."""

    stored: list[Received] = field(default_factory=list)
    published: dict[str, Received] = field(default_factory=dict)
    """By where the answer goes."""
    repeated: list[str] = field(default_factory=list)
    to_refuse: int = 0
    healing: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        async def hear(message: Msg) -> None:
            self.published[message.reply] = _received(message.headers, message.data)

        async def hear_answer(message: Msg) -> None:
            answer = json.loads(message.data or b"null") or {}
            if answer.get("duplicate"):
                self.repeated.append(message.subject)
            if "error" in answer and self.to_refuse:
                self.to_refuse -= 1
                if not self.to_refuse:
                    self.healing = asyncio.create_task(self._limit(max_msgs=-1), name="heal")

        await self.stream.client.subscribe(f"{self.stream.name}.events", cb=hear)
        await self.stream.client.subscribe("_INBOX.>", cb=hear_answer)
        await self.stream.client.flush()

    async def received(self) -> Sequence[Received]:
        await self.stream.client.flush()
        state = (await self.stream.js.stream_info(self.stream.name)).state
        for sequence in range(len(self.stored) + 1, state.last_seq + 1):
            message = await self.stream.js.get_msg(self.stream.name, sequence)
            self.stored.append(_received(message.headers, message.data or b""))
        return [*self.stored, *(self.published[place] for place in self.repeated)]

    async def fail(self, times: int) -> None:
        """The stream has room for two, until it has said so as often."""
        state = (await self.stream.js.stream_info(self.stream.name)).state
        self.to_refuse = times
        await self._limit(max_msgs=state.messages + 2, discard=DiscardPolicy.NEW)

    async def refuse(self) -> None:
        await self._limit(max_msg_size=1)

    async def _limit(self, **settings: Any) -> None:
        config = (await self.stream.js.stream_info(self.stream.name)).config
        await self.stream.js.update_stream(config.evolve(**settings))


def _received(headers: Mapping[str, str] | None, body: bytes) -> Received:
    return Received(event_id=(headers or {})["Nats-Msg-Id"], event=json.loads(body))


class TestNatsSink(LogSinkContract):
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
                    "url": url_at(nats_service, proxy.port),
                    "subject": f"{nats_stream.name}.events",
                    "timeout": 1,
                    "connect_timeout": 1,
                },
                secrets=[PASSWORD],
                answers_within=4.0,
            )
            await harness.listen()
            yield harness
