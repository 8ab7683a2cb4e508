"""A topic of a test's own on the real broker, as the harnesses of the kit want it: to be broken."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from hammerwork.plugins import Json

from ..services import free_port
from ..services.kafka import LIGHT, PASSWORD, USER, KafkaService

PARTITIONS = 3


@dataclass(frozen=True)
class KafkaPlace:
    """A topic, and how it is reached: through the listener that wants a login, where the broker is ours."""

    service: KafkaService
    topic: str

    @property
    def options(self) -> Mapping[str, Json]:
        """Those that a bridge and a sink have in common."""
        if self.service.secured is None:
            return {"bootstrap": self.service.bootstrap}
        login: Json = {"mechanism": "SCRAM-SHA-256", "username": USER, "password": PASSWORD}
        return {"bootstrap": self.service.secured.sasl, "sasl": login}

    @property
    def secrets(self) -> list[str]:
        return [] if self.service.secured is None else [PASSWORD]

    async def restart(self) -> None:
        """Until the broker knows itself again: at first it names nobody who could make a topic."""
        await asyncio.to_thread(self.service.restart)
        async with asyncio.timeout(20), self._admin() as admin:
            while not (await admin.describe_cluster())["brokers"]:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)

    async def take_at_most(self, size: int) -> None:
        """From now on the topic takes no larger batch than that."""
        settings = {"max.message.bytes": str(size)}
        async with self._admin() as admin:
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, self.topic, settings)])

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.service.bootstrap)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    def nowhere(self) -> Mapping[str, Json]:
        """The options, for a place where nobody answers."""
        return {**self.options, "bootstrap": f"127.0.0.1:{free_port()}", "connect_timeout": 2}


@asynccontextmanager
async def kafka_place(service: KafkaService, **settings: str) -> AsyncIterator[KafkaPlace]:
    """A fresh topic; `settings` are its own, with underscores for dots."""
    if not service.apache:
        pytest.skip(LIGHT)
    topic = f"conformance.{secrets.token_hex(6)}"
    await service.create_topic(topic, PARTITIONS, **settings)
    yield KafkaPlace(service, topic)
    await service.delete_topic(topic)
