"""The kit on RabbitMQ, with a quorum queue."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import aiormq
import pytest

from hammerwork.bridges.rabbitmq import RabbitmqBridge
from hammerwork.plugins import Json, Message
from hammerwork.plugins.conformance import BridgeContract, BridgeHarness

from ..bridges.rabbitmq_producer import WireProperties
from ..services import free_port
from ..services.rabbitmq import RabbitmqService

USER = "conformance"


@dataclass(kw_only=True)
class RabbitmqHarness(BridgeHarness):
    """A durable queue of the test's own, and a user whose password is no other word of the test."""

    service: RabbitmqService
    queue: str

    @contextlib.asynccontextmanager
    async def channel(self) -> AsyncIterator[aiormq.abc.AbstractChannel]:
        connection = aiormq.Connection(self.service.url)
        await connection.connect()
        try:
            yield await connection.channel(publisher_confirms=True)
        finally:
            await connection.close()

    async def publish(self, messages: Sequence[Message]) -> None:
        async with self.channel() as channel:
            for message in messages:
                await channel.basic_publish(
                    message.body, routing_key=self.queue, properties=_properties(message)
                )

    async def unsettled(self) -> int:
        async with self.channel() as channel:
            return (await channel.queue_declare(self.queue, passive=True)).message_count or 0

    async def restart(self) -> None:
        await asyncio.to_thread(self.service.stop, immediate=False)
        await asyncio.to_thread(self.service.start)

    async def cut(self) -> None:
        await asyncio.to_thread(self.service.close_all_connections)

    async def unreachable(self) -> Mapping[str, Json]:
        return {**self.options, "url": f"amqp://{USER}:{self.secrets[0]}@127.0.0.1:{free_port()}/"}


def _properties(message: Message) -> aiormq.spec.Basic.Properties:
    properties = aiormq.spec.Basic.Properties(
        delivery_mode=2,
        message_id=message.id,
        headers=dict(message.headers),
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        correlation_id=message.correlation_id,
        priority=message.priority,
        timestamp=message.timestamp,
    )
    return WireProperties(properties.marshal())


@pytest.fixture(scope="session")
def password(rabbitmq_service: RabbitmqService) -> str:
    """Of a user that is made for this."""
    made = secrets.token_hex(8)
    rabbitmq_service.ctl("add_user", USER, made)
    rabbitmq_service.ctl("set_permissions", "-p", "/", USER, ".*", ".*", ".*")
    return made


class TestRabbitmq(BridgeContract):
    plugin = RabbitmqBridge
    kind = "rabbitmq"

    @pytest.fixture
    async def harness(self, rabbitmq_service: RabbitmqService, password: str) -> AsyncIterator[BridgeHarness]:
        host, port = rabbitmq_service.address
        harness = RabbitmqHarness(
            service=rabbitmq_service,
            queue=f"conformance.{secrets.token_hex(6)}",
            options={"url": f"amqp://{USER}:{password}@{host}:{port}/", "prefetch": 30},
            secrets=[password],
        )
        harness.options = {**harness.options, "queue": harness.queue}
        async with harness.channel() as channel:
            arguments: aiormq.abc.ArgumentsType = {"x-queue-type": "quorum"}
            await channel.queue_declare(harness.queue, durable=True, arguments=arguments)
        yield harness
        async with harness.channel() as channel:
            await channel.queue_delete(harness.queue)
