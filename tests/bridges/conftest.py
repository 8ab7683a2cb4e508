"""A queue or topic of the test's own on each broker, a producer for it and a bridge on it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import aiormq
import pytest
from aiobotocore.session import get_session

from hammerwork.bridges.rabbitmq import RabbitmqBridge
from hammerwork.bridges.sqs import SqsBridge

from ..services.aws import AwsService
from ..services.aws_proxy import AwsProxy
from ..services.kafka import KafkaService
from .kafka_topic import Topic, topic_on
from .rabbitmq_producer import Producer
from .sqs_producer import Bucket, SqsProducer, create_queue

aws = get_session()
"""Kept, because to read the descriptions of the services takes longer than most of the tests."""


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


@pytest.fixture
async def sqs(aws_service: AwsService, aws_proxy: AwsProxy) -> AsyncIterator[SqsProducer]:
    """A producer on a fresh standard queue, whose bridges go through the proxy."""
    async with aws.create_client("sqs", **aws_service.client_arguments()) as client:
        url = await create_queue(client)
        yield SqsProducer(client, aws_service, url, aws_proxy.endpoint)
        await client.delete_queue(QueueUrl=url)


@pytest.fixture
async def fifo(aws_service: AwsService, aws_proxy: AwsProxy) -> AsyncIterator[SqsProducer]:
    """A producer on a fresh FIFO queue."""
    async with aws.create_client("sqs", **aws_service.client_arguments()) as client:
        url = await create_queue(client, fifo=True)
        yield SqsProducer(client, aws_service, url, aws_proxy.endpoint)
        await client.delete_queue(QueueUrl=url)


@pytest.fixture
async def bucket(aws_service: AwsService) -> AsyncIterator[Bucket]:
    async with aws.create_client("s3", **aws_service.client_arguments()) as client:
        name = f"test-{secrets.token_hex(6)}"
        place = {"LocationConstraint": aws_service.region}
        await client.create_bucket(Bucket=name, CreateBucketConfiguration=place)  # type: ignore[arg-type]
        yield Bucket(client, name)


@pytest.fixture
async def aws_proxy(aws_service: AwsService) -> AsyncIterator[AwsProxy]:
    async with AwsProxy(aws_service.endpoint) as proxy:
        yield proxy


@pytest.fixture
async def sqs_bridge(sqs: SqsProducer) -> AsyncIterator[SqsBridge]:
    """An open bridge on the test's queue, with one poller."""
    bridge = SqsBridge("orders", sqs.options())
    await bridge.open()
    yield bridge
    await bridge.close()


@pytest.fixture
async def topic(kafka_service: KafkaService) -> AsyncIterator[Topic]:
    """A topic with one partition."""
    async with topic_on(kafka_service) as topic:
        yield topic


@pytest.fixture
async def wide_topic(kafka_service: KafkaService) -> AsyncIterator[Topic]:
    """A topic with four partitions."""
    async with topic_on(kafka_service, 4) as topic:
        yield topic
