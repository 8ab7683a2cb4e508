"""A stream of the test's own on each broker."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from ..services.broker import BrokerService
from .mqtt_topic import MqttTopic
from .nats_stream import NatsStream
from .redis_stream import RedisStream


@pytest.fixture
async def redis_stream(redis_service: BrokerService) -> AsyncIterator[RedisStream]:
    stream = RedisStream(redis_service.url, f"test.{secrets.token_hex(6)}")
    yield stream
    await stream.close()


@pytest.fixture
async def nats_stream(nats_service: BrokerService) -> AsyncIterator[NatsStream]:
    stream = await NatsStream.make(nats_service.url, f"test_{secrets.token_hex(6)}")
    yield stream
    await stream.close()


@pytest.fixture
async def mqtt_topic(mqtt_service: BrokerService) -> AsyncIterator[MqttTopic]:
    topic = MqttTopic(mqtt_service.url, f"test-{secrets.token_hex(6)}")
    await topic.connect()
    yield topic
    await topic.close()
