"""The kit on Redis Streams, in and out, through a proxy that cuts and stalls."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest

from hammerwork.plugins import Message
from hammerwork.plugins.conformance import (
    BridgeContract,
    BridgeHarness,
    LogSinkContract,
    Received,
    SinkHarness,
)
from hammerwork.plugins.redis import RedisBridge, RedisSink

from ..plugins.brokers import until
from ..plugins.redis_stream import RedisStream
from ..services.broker import PASSWORD, BrokerService
from ..services.proxy import FaultProxy
from .served import Served, url_at


@dataclass(kw_only=True)
class StreamHarness(Served, BridgeHarness):
    """A stream of the test's own, and entries with a field for everything that they carry."""

    stream: RedisStream

    async def publish(self, messages: Sequence[Message]) -> None:
        for message in messages:
            said = {"body": message.body, "id": message.id, "key": message.key, **message.headers}
            flat = [part for name, value in said.items() if value is not None for part in (name, value)]
            await self.stream.add(*flat)

    async def unsettled(self) -> int:
        groups = await self.stream.ask("XINFO", "GROUPS", self.stream.name)
        if not groups:
            return int(await self.stream.ask("XLEN", self.stream.name))
        group = dict(zip(groups[0][::2], groups[0][1::2], strict=True))
        return int(group[b"pending"]) + int(group[b"lag"])


class TestRedisBridge(BridgeContract):
    plugin = RedisBridge
    kind = "redis"

    @pytest.fixture
    async def harness(
        self, redis_service: BrokerService, redis_stream: RedisStream
    ) -> AsyncIterator[BridgeHarness]:
        await redis_stream.ask("XGROUP", "CREATE", redis_stream.name, "hammerwork", "0", "MKSTREAM")
        async with FaultProxy(*redis_service.address) as proxy:
            yield StreamHarness(
                service=redis_service,
                stream=redis_stream,
                proxy=proxy,
                options={
                    "url": url_at(redis_service, proxy.port),
                    "stream": redis_stream.name,
                    "body_field": "body",
                    "key_field": "key",
                    "identity": {"field": "id"},
                    "lease": 1,
                },
                secrets=[PASSWORD],
                lease=1.0,
            )


@dataclass(kw_only=True)
class EventsHarness(Served, SinkHarness):
    """A stream of the test's own that events are added to."""

    stream: RedisStream
    healing: asyncio.Task[None] | None = None

    async def received(self) -> Sequence[Received]:
        found = []
        for _, flat in await self.stream.ask("XRANGE", self.stream.name, "-", "+"):
            fields = {flat[n].decode(): flat[n + 1].decode() for n in range(0, len(flat), 2)}
            found.append(
                Received(event_id=fields["id"], event={**fields, "data": json.loads(fields["data"])})
            )
        return found

    async def fail(self, times: int) -> None:
        """The server has no memory left, until it has said so as often."""
        await self.stream.ask("CONFIG", "RESETSTAT")
        await self.stream.ask("CONFIG", "SET", "maxmemory", 1)
        self.healing = asyncio.create_task(self._heal(times), name="heal")

    async def _heal(self, times: int) -> None:
        async def refused() -> bool:
            told = (await self.stream.ask("INFO", "errorstats")).decode()
            return sum(int(count) for count in re.findall(r"errorstat_OOM:count=(\d+)", told)) >= times

        await until(refused)
        await self.heal()

    async def heal(self) -> None:
        await self.stream.ask("CONFIG", "SET", "maxmemory", 0)


class TestRedisSink(LogSinkContract):
    plugin = RedisSink
    kind = "redis"

    @pytest.fixture
    async def harness(
        self, redis_service: BrokerService, redis_stream: RedisStream
    ) -> AsyncIterator[SinkHarness]:
        async with FaultProxy(*redis_service.address) as proxy:
            harness = EventsHarness(
                service=redis_service,
                stream=redis_stream,
                proxy=proxy,
                options={"url": url_at(redis_service, proxy.port), "stream": redis_stream.name, "timeout": 1},
                secrets=[PASSWORD],
                answers_within=4.0,
            )
            yield harness
            if harness.healing is not None:
                harness.healing.cancel()
                await harness.heal()
