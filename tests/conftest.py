"""Fixtures that every room's tests share: the real servers, and a clean place in each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import TypeVar

import pytest

from hammerwork.core.postgres.database import Database
from hammerwork.core.queue import Queue

from .services import ServiceMissing
from .services.aws import AwsService, find_aws
from .services.kafka import KafkaService, find_kafka, find_light_kafka
from .services.postgres import OLDEST, PostgresService, find_postgres
from .services.rabbitmq import RabbitmqService, find_rabbitmq

Service = TypeVar("Service", PostgresService, RabbitmqService, AwsService, KafkaService)


@pytest.fixture(scope="session")
def postgres_service() -> Iterator[PostgresService]:
    """The newest Postgres, started at most once a session."""
    yield from _running(find_postgres)


@pytest.fixture(scope="session")
def oldest_postgres_service() -> Iterator[PostgresService]:
    """The oldest Postgres that is supported."""
    yield from _running(lambda: find_postgres(OLDEST))


@pytest.fixture(scope="session")
def rabbitmq_service() -> Iterator[RabbitmqService]:
    """A RabbitMQ node, started at most once a session."""
    yield from _running(find_rabbitmq)


@pytest.fixture(scope="session")
def aws_service() -> Iterator[AwsService]:
    """An emulator of SQS, Kinesis and S3, started at most once a session."""
    yield from _running(find_aws)


@pytest.fixture(scope="session")
def kafka_service() -> Iterator[KafkaService]:
    """A Kafka broker, Apache's own where it can be had, started at most once a session."""
    yield from _running(find_kafka)


@pytest.fixture(scope="session")
def light_kafka_service() -> Iterator[KafkaService]:
    """The light broker that speaks Kafka's protocol, whatever else there is."""
    yield from _running(find_light_kafka)


@pytest.fixture
async def dsn(postgres_service: PostgresService) -> AsyncIterator[str]:
    """The URL of a fresh, empty database of the newest Postgres."""
    url = await postgres_service.create_database()
    yield url
    await postgres_service.drop_database(url)


@pytest.fixture
def rabbitmq_url(rabbitmq_service: RabbitmqService) -> str:
    """The URL of the session's node; tests name their queues afresh instead of having a vhost each."""
    return rabbitmq_service.url


def _running(find: Callable[[], Service]) -> Iterator[Service]:
    try:
        service = find()
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    try:
        yield service
    finally:
        service.close()


@pytest.fixture
async def queue(dsn: str) -> AsyncIterator[Queue]:
    """A Queue on a fresh database with the schema."""
    async with Queue(dsn, patience=timedelta(seconds=2)) as queue:
        await queue.migrate()
        yield queue


@pytest.fixture
def database(queue: Queue) -> Database:
    """The database of `queue`."""
    return queue.database
