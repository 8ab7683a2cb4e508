"""A queue of the test's own on the real broker, a producer for it and a bridge on it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import aiormq
import pytest

from hammerwork.bridges.rabbitmq import RabbitmqBridge

from .rabbitmq_producer import Producer


@pytest.fixture
async def producer(rabbitmq_url: str) -> AsyncIterator[Producer]:
    connection = aiormq.Connection(rabbitmq_url)
    await connection.connect()
    channel = await connection.channel()
    queue = f"test.{secrets.token_hex(6)}"
    await channel.queue_declare(queue, durable=True)
    yield Producer(channel, queue, rabbitmq_url)
    await connection.close()
    cleaner = aiormq.Connection(rabbitmq_url)
    await cleaner.connect()
    channel = await cleaner.channel()
    await channel.queue_delete(queue)
    await cleaner.close()


@pytest.fixture
async def bridge(producer: Producer) -> AsyncIterator[RabbitmqBridge]:
    """An open bridge on the test's queue, as it is set up by default."""
    bridge = RabbitmqBridge("orders", producer.options())
    await bridge.open()
    yield bridge
    await bridge.close()
