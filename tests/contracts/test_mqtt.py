"""The kit on MQTT: a session of the test's own, through a proxy that cuts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from hammerwork.plugins import Json, Message
from hammerwork.plugins.conformance import BridgeContract, BridgeHarness
from hammerwork.plugins.mqtt import MqttBridge, MqttOptions

from ..plugins.brokers import AT_ONCE, SOON
from ..plugins.mqtt_topic import MqttTopic
from ..services import free_port
from ..services.broker import PASSWORD, USER, BrokerService
from ..services.proxy import FaultProxy


def url_at(port: int) -> str:
    return f"mqtt://{USER}:{PASSWORD}@127.0.0.1:{port}"


@dataclass(kw_only=True)
class SessionHarness(BridgeHarness):
    """What is published waits in the session, which begins before the test."""

    service: BrokerService
    topic: MqttTopic
    proxy: FaultProxy

    async def publish(self, messages: Sequence[Message]) -> None:
        for message in messages:
            user = {"id": message.id, "key": message.key, **message.headers}
            said: dict[str, Any] = {}
            if message.content_type is not None:
                said["ContentType"] = message.content_type
            if message.correlation_id is not None:
                said["CorrelationData"] = message.correlation_id.encode()
            named = [(name, str(value)) for name, value in user.items() if value is not None]
            await self.topic.send(message.body, user=named, **said)

    async def unsettled(self) -> int:
        """Only the session's own client can see what it holds."""
        looking = MqttBridge("looking", MqttOptions.model_validate(dict(self.options)))
        await looking.open()
        count = len(await looking.pull(SOON)) + len(await looking.pull(AT_ONCE))
        await looking.close()
        return count

    async def restart(self) -> None:
        await asyncio.to_thread(self.service.restart, immediate=False)

    async def cut(self) -> None:
        self.proxy.cut()

    async def unreachable(self) -> Mapping[str, Json]:
        return {**self.options, "url": url_at(free_port())}


class TestMqttBridge(BridgeContract):
    plugin = MqttBridge
    kind = "mqtt"

    @pytest.fixture
    async def harness(
        self, mqtt_service: BrokerService, mqtt_topic: MqttTopic
    ) -> AsyncIterator[BridgeHarness]:
        async with FaultProxy(*mqtt_service.address) as proxy:
            harness = SessionHarness(
                service=mqtt_service,
                topic=mqtt_topic,
                proxy=proxy,
                options={
                    "url": url_at(proxy.port),
                    "topics": [f"{mqtt_topic.name}/#"],
                    "client_id": mqtt_topic.name,
                    "identity": {"property": "id"},
                    "key": {"property": "key"},
                },
                secrets=[PASSWORD],
            )
            await harness.unsettled()
            yield harness
