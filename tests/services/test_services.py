"""The servers that every other test trusts: they start, forget nothing on a crash, and break on demand."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import aio_pika
import asyncpg
import pytest
from aiobotocore.session import get_session
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from . import ServiceMissing, docker_answers
from . import aws as aws_room
from . import kafka as kafka_room
from . import postgres as postgres_room
from . import rabbitmq as rabbitmq_room
from .aws import AwsService, find_aws
from .kafka import KafkaService, find_kafka
from .postgres import OLDEST, PostgresService, find_postgres
from .proxy import FaultProxy
from .rabbitmq import RabbitmqService, find_rabbitmq


async def test_a_fresh_database_is_empty_and_private(postgres_service: PostgresService, dsn: str) -> None:
    other = await postgres_service.create_database()
    connection = await asyncpg.connect(other)
    await connection.execute("CREATE TABLE things (id int)")
    await connection.close()

    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SELECT to_regclass('things')") is None
    await connection.close()
    await postgres_service.drop_database(other)


async def test_a_database_can_be_made_from_a_template(postgres_service: PostgresService, dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE things AS SELECT 7 AS id")
    await connection.close()

    copy = await postgres_service.create_database(template=dsn.rpartition("/")[2])
    connection = await asyncpg.connect(copy)
    assert await connection.fetchval("SELECT id FROM things") == 7
    await connection.close()
    await postgres_service.drop_database(copy)


async def test_postgres_keeps_what_was_committed_over_a_crash(
    postgres_service: PostgresService, dsn: str
) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE things AS SELECT 7 AS id")

    await asyncio.to_thread(postgres_service.restart, immediate=True)

    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SELECT id FROM things") == 7
    await connection.close()


async def test_the_oldest_postgres_is_the_one_that_was_asked_for(
    oldest_postgres_service: PostgresService,
) -> None:
    connection = await asyncpg.connect(oldest_postgres_service.dsn())
    assert connection.get_server_version().major == OLDEST
    await connection.close()


async def test_rabbitmq_keeps_durable_messages_over_a_crash(rabbitmq_service: RabbitmqService) -> None:
    name = f"test.{secrets.token_hex(6)}"
    async with await aio_pika.connect(rabbitmq_service.url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.declare_queue(name, durable=True)
        message = aio_pika.Message(b"kept", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, routing_key=name)

        await asyncio.to_thread(rabbitmq_service.restart)

    async with await aio_pika.connect(rabbitmq_service.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(name, passive=True)
        received = await queue.get(timeout=5)
        assert received is not None
        assert received.body == b"kept"
        await received.ack()
        await queue.delete()


async def test_rabbitmq_closes_connections_when_told(rabbitmq_service: RabbitmqService) -> None:
    connection = await aio_pika.connect(rabbitmq_service.url)
    closed = asyncio.Event()
    connection.close_callbacks.add(lambda *_: closed.set())
    await asyncio.to_thread(rabbitmq_service.close_all_connections)
    await asyncio.wait_for(closed.wait(), timeout=10)
    await connection.close()


async def test_aws_hands_out_what_was_sent_to_a_queue_a_stream_and_a_bucket(aws_service: AwsService) -> None:
    session, to, name = get_session(), aws_service.client_arguments(), f"test-{secrets.token_hex(6)}"
    async with session.create_client("sqs", **to) as sqs:
        url = (await sqs.create_queue(QueueName=name))["QueueUrl"]
        await sqs.send_message(QueueUrl=url, MessageBody="sent")
        received = await sqs.receive_message(QueueUrl=url)
        assert [message["Body"] for message in received["Messages"]] == ["sent"]
        await sqs.delete_queue(QueueUrl=url)
    async with session.create_client("kinesis", **to) as kinesis:
        await kinesis.create_stream(StreamName=name, ShardCount=1)
        put = await kinesis.put_records(StreamName=name, Records=[{"Data": b"put", "PartitionKey": "a"}])
        assert put["FailedRecordCount"] == 0
        await kinesis.delete_stream(StreamName=name)
    async with session.create_client("s3", **to) as s3:
        await s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        await s3.put_object(Bucket=name, Key="a", Body=b"stored")
        assert await (await s3.get_object(Bucket=name, Key="a"))["Body"].read() == b"stored"


async def test_a_cut_commit_is_stored_though_the_client_was_never_told(
    postgres_service: PostgresService, dsn: str
) -> None:
    direct = await asyncpg.connect(dsn)
    await direct.execute("CREATE TABLE things (id int)")
    async with FaultProxy(*postgres_service.address) as proxy:
        client = await asyncpg.connect(postgres_service.dsn(dsn.rpartition("/")[2], port=proxy.port))
        tripped = proxy.cut_after(b"COMMIT")
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
            async with client.transaction():
                await client.execute("INSERT INTO things VALUES (1)")
        assert tripped.is_set()
        client.terminate()

        again = await asyncpg.connect(postgres_service.dsn(dsn.rpartition("/")[2], port=proxy.port))
        assert await again.fetchval("SELECT count(*) FROM things") == 1
        await again.close()
    await direct.close()


async def test_an_answer_can_be_cut_by_what_it_says(postgres_service: PostgresService, dsn: str) -> None:
    async with FaultProxy(*postgres_service.address) as proxy:
        client = await asyncpg.connect(postgres_service.dsn(dsn.rpartition("/")[2], port=proxy.port))
        tripped = proxy.cut_after(b"secret words", "to_client")
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
            await client.fetchval("SELECT 'secret ' || 'words'")
        assert tripped.is_set()
        client.terminate()


async def test_a_black_hole_stalls_and_a_healed_proxy_flows_on(
    postgres_service: PostgresService, dsn: str
) -> None:
    async with FaultProxy(*postgres_service.address) as proxy:
        client = await asyncpg.connect(postgres_service.dsn(dsn.rpartition("/")[2], port=proxy.port))
        proxy.blackhole()
        question = asyncio.create_task(client.fetchval("SELECT 7"), name="question")
        done, _ = await asyncio.wait([question], timeout=0.3)
        assert not done
        proxy.heal()
        assert await asyncio.wait_for(question, timeout=5) == 7
        await client.close()


async def test_a_refusing_proxy_resets_old_and_new_connections(
    postgres_service: PostgresService, dsn: str
) -> None:
    async with FaultProxy(*postgres_service.address) as proxy:
        through = postgres_service.dsn(dsn.rpartition("/")[2], port=proxy.port)
        client = await asyncpg.connect(through)
        proxy.refuse()
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
            await client.fetchval("SELECT 1")
        client.terminate()
        with pytest.raises((asyncpg.PostgresConnectionError, OSError)):
            await asyncpg.connect(through)
        proxy.heal()
        client = await asyncpg.connect(through)
        assert await client.fetchval("SELECT 7") == 7
        await client.close()


async def test_a_url_in_the_environment_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(postgres_room.VARIABLE, "postgresql://user@elsewhere:1/db")
    monkeypatch.setenv(rabbitmq_room.VARIABLE, "amqp://elsewhere:2/")
    monkeypatch.setenv(aws_room.VARIABLE, "http://elsewhere:3")
    assert find_aws().address == ("elsewhere", 3)
    monkeypatch.setenv(kafka_room.VARIABLE, "elsewhere:3")
    assert find_kafka().bootstrap == "elsewhere:3"
    assert find_postgres().address == ("elsewhere", 1)
    assert find_rabbitmq().address == ("elsewhere", 2)


async def test_what_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    if docker_answers():
        pytest.skip("a Docker engine answers, so nothing is missing")
    monkeypatch.delenv(postgres_room.VARIABLE, raising=False)
    monkeypatch.delenv(rabbitmq_room.VARIABLE, raising=False)
    monkeypatch.delenv(aws_room.VARIABLE, raising=False)
    monkeypatch.setattr(aws_room, "_moto_installed", lambda: False)
    monkeypatch.setattr(rabbitmq_room, "DEBIAN", Path("/nowhere"))
    with pytest.raises(ServiceMissing, match="apt-get install rabbitmq-server"):
        find_rabbitmq()
    with pytest.raises(ServiceMissing, match=r"moto\[server\]"):
        find_aws()
    with pytest.raises(ServiceMissing, match="apt-get install postgresql-9"):
        find_postgres(9)


@pytest.fixture
async def topic(kafka_service: KafkaService) -> str:
    name = f"test.{secrets.token_hex(6)}"
    await kafka_service.create_topic(name)
    return name


async def test_kafka_keeps_records_over_a_crash(kafka_service: KafkaService, topic: str) -> None:
    if not kafka_service.apache:
        pytest.skip("the light broker keeps all in memory")
    async with AIOKafkaProducer(bootstrap_servers=kafka_service.bootstrap, acks="all") as producer:
        await producer.send_and_wait(topic, b"kept")

    await asyncio.to_thread(kafka_service.restart)

    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=kafka_service.bootstrap, auto_offset_reset="earliest"
    )
    async with consumer:
        record = await asyncio.wait_for(consumer.getone(), timeout=20)
    assert record.value == b"kept"


async def test_kafka_deletes_records_as_retention_does(kafka_service: KafkaService, topic: str) -> None:
    if not kafka_service.apache:
        pytest.skip("the light broker deletes no records")
    async with AIOKafkaProducer(bootstrap_servers=kafka_service.bootstrap) as producer:
        for _ in range(3):
            await producer.send_and_wait(topic, b"old")
        await kafka_service.delete_records(topic, 0, before=2)
        async with AIOKafkaConsumer(bootstrap_servers=kafka_service.bootstrap) as consumer:
            starts = await consumer.beginning_offsets([TopicPartition(topic, 0)])
    assert list(starts.values()) == [2]


async def test_a_suspended_kafka_answers_nobody_until_it_is_resumed(
    kafka_service: KafkaService, topic: str
) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka_service.bootstrap) as producer:
        await producer.send_and_wait(topic, b"before")
        kafka_service.suspend()
        try:
            sending = await producer.send(topic, b"during")
            done, _ = await asyncio.wait([sending], timeout=0.3)
            assert not done
        finally:
            kafka_service.resume()
        await asyncio.wait_for(sending, timeout=20)


async def test_the_light_kafka_carries_records(light_kafka_service: KafkaService) -> None:
    name = f"test.{secrets.token_hex(6)}"
    await light_kafka_service.create_topic(name, partitions=2)
    async with AIOKafkaProducer(bootstrap_servers=light_kafka_service.bootstrap) as producer:
        answer = await producer.send_and_wait(name, b"light", partition=1)
    assert (answer.partition, answer.offset) == (1, 0)
