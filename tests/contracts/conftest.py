"""One database for all the contracts: the kit's tests take names of their own in it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ..plugins.places import mqtt_topic as mqtt_topic
from ..plugins.places import nats_stream as nats_stream
from ..plugins.places import redis_stream as redis_stream
from ..services.postgres import PostgresService


@pytest.fixture(scope="session")
def contracts_dsn(postgres_service: PostgresService) -> Iterator[str]:
    with ThreadPoolExecutor(1) as thread:
        url = thread.submit(asyncio.run, postgres_service.create_database()).result()
        yield url
        thread.submit(asyncio.run, postgres_service.drop_database(url)).result()


@pytest.fixture
def dsn(contracts_dsn: str) -> str:
    """An empty database when the first test asks, shared by all that follow."""
    return contracts_dsn
