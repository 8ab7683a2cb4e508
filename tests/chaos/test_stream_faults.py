"""Streams of events: what reaches Kafka and Kinesis while gateways are killed and destinations fail."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import signal
from collections import Counter
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from aiobotocore.session import get_session

from hammerwork.core import operate
from hammerwork.core.errors import Unavailable
from hammerwork.core.event import EventType
from hammerwork.core.job import Job
from hammerwork.core.publish.log_relay import LogRelay
from hammerwork.core.publish.relay import Subscription
from hammerwork.core.queue import Queue
from hammerwork.sinks.kafka import KafkaSink, KafkaSinkOptions
from hammerwork.sinks.kinesis import KinesisOptions, KinesisSink

from ..services.aws import AwsService
from ..services.kafka import KafkaService
from ..sinks.kafka_reader import read_topic
from ..sinks.kinesis_faults import FaultyKinesis
from ..sinks.kinesis_reader import read_stream
from ..sinks.streaming import assert_in_order
from .conftest import KILLED_KAFKA, Spawn
from .ledger import until
from .processes import Child
from .running import running

pytestmark = [pytest.mark.chaos, *KILLED_KAFKA]

WANTED = Subscription(name="stream", types=frozenset(EventType), from_log=True)
CHANGE = """
with chosen as (
    select id from hammerwork.jobs
    where id = any(array(select id from hammerwork.jobs order by random() limit 20))
    order by id for no key update
), told as (
    update hammerwork.jobs set sequence = sequence + 1 from chosen where jobs.id = chosen.id
    returning jobs.id, sequence, queue
)
insert into hammerwork.events (job_id, sequence, type, queue, data)
select id, sequence, 'job.snoozed', queue, jsonb_build_object('text', repeat('x', 100)) from told
"""
POINTS = (
    "log_relay.before_send", "kafka_sink.sent", "kafka_sink.before_commit", "kafka_sink.committed",
    "log_relay.sent", "log_relay.noted",
)  # fmt: skip


class Story:
    """Jobs whose events are written by several connections at once, and who must be told of them."""

    def __init__(self, queue: Queue, dsn: str) -> None:
        self._queue = queue
        self._dsn = dsn

    async def begin(self, jobs: int) -> None:
        await self._queue.database.fetch("register_sink", "stream", "test", sorted(WANTED.types))
        await self._queue.enqueue_many([Job("orders", n, delay=timedelta(hours=1)) for n in range(jobs)])

    async def go_on(self, transactions: int, pause: float = 0.0) -> None:
        connections = [await asyncpg.connect(self._dsn) for _ in range(3)]
        try:
            await asyncio.gather(*(self._write(one, transactions // 3, pause) for one in connections))
        finally:
            for one in connections:
                await one.close()

    async def _write(self, connection: asyncpg.Connection, transactions: int, pause: float) -> None:
        for _ in range(transactions):
            await connection.execute(CHANGE)
            await asyncio.sleep(pause)

    async def told(self) -> Counter[str]:
        connection = await asyncpg.connect(self._dsn)
        rows = await connection.fetch("select event_id::text from hammerwork.events")
        await connection.close()
        return Counter(row[0] for row in rows)

    async def until_caught_up(self, within: float = 30.0) -> None:
        async def caught_up() -> bool:
            try:
                return (await operate.sinks(self._queue.database))[0].behind == 0
            except Unavailable:
                return False

        await until(caught_up, within, "the sink has caught up")

    async def pass_the_duty_on(self) -> None:
        """What the hold of a process that was killed does in the end."""
        await self._queue.database.fetch("look_at_sink", "stream")
        async with self._queue.database.transaction() as connection:
            await connection.execute("delete from hammerwork.duties")


@pytest.fixture
def story(queue: Queue, dsn: str) -> Story:
    return Story(queue, dsn)


@pytest.fixture
def kafka(kafka_service: KafkaService) -> KafkaService:
    if not kafka_service.apache:
        pytest.skip("the light broker knows neither transactions nor idempotent producers")
    return kafka_service


@pytest.fixture
async def topic(kafka: KafkaService) -> str:
    name = f"chaos.{secrets.token_hex(6)}"
    await kafka.create_topic(name, partitions=3)
    return name


async def seen(kafka: KafkaService, topic: str) -> list[dict[str, Any]]:
    return [json.loads(record.value) for record in await read_topic(kafka.bootstrap, topic)]


@pytest.mark.parametrize("delivery", ["transactional", "idempotent"])
async def test_gateways_that_are_killed_again_and_again_lose_nothing_and_keep_the_order(
    spawn: Spawn, story: Story, kafka: KafkaService, topic: str, dsn: str, delivery: str
) -> None:
    await story.begin(60)
    options = {"bootstrap": kafka.bootstrap, "topic": topic, "delivery": delivery}
    if delivery == "transactional":
        options["transactional_id"] = f"hw.{topic}"
    arguments = {"CHAOS_DSN": dsn, "CHAOS_SINK": json.dumps(options), "CHAOS_BATCH": "200"}

    def start(failpoints: str = "") -> Child:
        return spawn("stream_process", arguments, failpoints)

    writing = asyncio.create_task(story.go_on(240, pause=0.05), name="write")
    dice, killed = random.Random(4), 0
    points = [point for point in POINTS if delivery == "transactional" or not point.startswith("kafka")]
    for point in points * (1 if delivery == "transactional" else 2):
        gateway = start(f"{point}=kill@{dice.randint(1, 4)}")
        try:
            killed += await gateway.ended(8) == -signal.SIGKILL
        except TimeoutError:
            await gateway.kill()
        await story.pass_the_duty_on()
    await writing
    assert killed >= len(points) - 1

    last = start()
    await story.until_caught_up()
    await last.stop()
    told, found = await story.told(), await seen(kafka, topic)
    reached = Counter(event["id"] for event in found)
    assert len(told) > 4000
    assert told - reached == Counter()
    assert set(reached) == set(told)
    if delivery == "transactional":
        assert set(reached.values()) == {1}
    assert_in_order((event["subject"], int(event["sequence"])) for event in found)


@pytest.mark.parametrize("delivery", ["transactional", "idempotent"])
async def test_a_broker_that_is_killed_and_one_that_freezes_lose_nothing(
    story: Story, kafka: KafkaService, queue: Queue, topic: str, delivery: str
) -> None:
    await story.begin(60)
    options = {"bootstrap": kafka.bootstrap, "topic": topic, "delivery": delivery, "request_timeout": 2}
    if delivery == "transactional":
        options["transactional_id"] = f"hw.{topic}"
    sink = KafkaSink("stream", KafkaSinkOptions.model_validate(options))
    relay = LogRelay(queue.database, WANTED, sink, kind="kafka", batch=200, hold=timedelta(seconds=6))
    async with running(relay):
        writing = asyncio.create_task(story.go_on(150, pause=0.03), name="write")
        await asyncio.sleep(0.5)
        await asyncio.to_thread(kafka.restart)
        kafka.suspend()
        try:
            await asyncio.sleep(0.5)
        finally:
            kafka.resume()
        await writing
        await story.until_caught_up()
        assert relay.status.state == "running"
    told, found = await story.told(), await seen(kafka, topic)
    reached = Counter(event["id"] for event in found)
    assert set(reached) == set(told)
    if delivery == "transactional":
        assert set(reached.values()) == {1}
    assert_in_order((event["subject"], int(event["sequence"])) for event in found)


@pytest.mark.parametrize("aggregate", [False, True])
async def test_kinesis_that_takes_a_part_and_throttles_loses_nothing_and_keeps_the_order(
    story: Story, aws_service: AwsService, queue: Queue, aggregate: bool
) -> None:
    await story.begin(60)
    stream = f"chaos-{secrets.token_hex(6)}"
    async with get_session().create_client("kinesis", **aws_service.client_arguments()) as client:
        await client.create_stream(StreamName=stream, ShardCount=3)
        await client.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1})
    async with FaultyKinesis(aws_service.endpoint, partial=0.2, whole=7, lost=5).running() as proxy:
        options = KinesisOptions.model_validate(
            {
                "stream": stream, "endpoint_url": proxy.url, "region": aws_service.region, "requests": 1,
                "access_key_id": aws_service.access_key, "secret_access_key": aws_service.secret_key,
                "aggregate": aggregate, "max_record_bytes": 4096,
            }
        )  # fmt: skip
        relay = LogRelay(queue.database, WANTED, KinesisSink("stream", options), kind="kinesis", batch=300)
        async with running(relay):
            await story.go_on(18)
            await story.until_caught_up(60)
    assert min(proxy.counts["partial"], proxy.counts["lost"], proxy.counts["whole"]) > 0, proxy.counts
    told = await story.told()
    found = [json.loads(record.data) for record in await read_stream(aws_service, stream)]
    assert {event["id"] for event in found} == set(told)
    assert_in_order((event["subject"], int(event["sequence"])) for event in found)
