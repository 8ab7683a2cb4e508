"""EventStream: a stream put together in code sends what the gateway would send."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from aiobotocore.session import get_session

from hammerwork import EventStream, Handlers, Job, Misconfigured, Queue, RunningJob, Worker
from hammerwork.core import operate
from hammerwork.core.publish.relay import Subscription
from hammerwork.gateway import settings as settings_room
from hammerwork.gateway.parts import build_parts

from ..core.memory_sink import MemorySink
from ..core.running import until
from ..services.aws import AwsService
from ..services.kafka import KafkaService
from ..sinks.kafka_reader import read_topic
from ..sinks.kinesis_reader import read_stream


async def test_one_stream_fills_kafka_and_kinesis(
    queue: Queue, kafka_service: KafkaService, aws_service: AwsService
) -> None:
    if not kafka_service.apache:
        pytest.skip("the light broker knows no idempotent producers")
    name = f"stream-{secrets.token_hex(6)}"
    await kafka_service.create_topic(name, partitions=2)
    async with get_session().create_client("kinesis", **aws_service.client_arguments()) as client:
        await client.create_stream(StreamName=name, ShardCount=1)
        await client.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
    stream = (
        EventStream()
        .to_kafka(name, bootstrap=kafka_service.bootstrap)
        .to_kinesis(
            name,
            endpoint_url=aws_service.endpoint,
            region=aws_service.region,
            access_key_id=aws_service.access_key,
            secret_access_key=aws_service.secret_key,
        )
        .with_events("job.completed")
        .with_filter(lambda event: event.queue == "billing")
        .with_source("/shop")
    )
    handlers = Handlers()

    async def handle(job: RunningJob) -> None:
        return None

    for handled in ("billing", "orders"):
        handlers.add(handled, handle)
    running = asyncio.create_task(stream.run(queue))
    await _until(lambda sinks: len(sinks) == 2, queue)
    jobs = [Job("billing"), Job("orders"), Job("billing")]
    await queue.enqueue_many(jobs)
    worker = Worker(queue, handlers)
    working = asyncio.create_task(worker.run())
    for job in jobs:
        await queue.result(job.id)
    await _until(lambda sinks: all(not sink.behind for sink in sinks), queue)
    worker.stop()
    await working
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    expected = {str(job.id) for job in jobs if job.queue == "billing"}
    from_kafka = [json.loads(record.value) for record in await read_topic(kafka_service.bootstrap, name)]
    from_kinesis = [json.loads(record.data) for record in await read_stream(aws_service, name)]
    for found in (from_kafka, from_kinesis):
        assert {event["subject"] for event in found} == expected
        assert {(event["type"], event["source"]) for event in found} == {
            ("dev.hammerwork.job.completed", "/shop")
        }
        assert len(found) == 2


@pytest.mark.parametrize("cancels", [2, 3])
async def test_a_stream_that_is_cancelled_again_while_it_ends_leaves_nothing_running(
    queue: Queue, cancels: int
) -> None:
    sinks = [MemorySink("slow"), MemorySink("slower")]
    for sink in sinks:
        sink.flowing.clear()
    stream = EventStream().with_events("job.enqueued").to_sink(sinks[0]).to_sink(sinks[1])
    running = asyncio.create_task(stream.run(queue))
    await _until(lambda found: len(found) == 2, queue)
    await queue.enqueue(Job("billing"))
    for sink in sinks:
        await sink.sending.wait()
    async with asyncio.timeout(3):
        for _ in range(cancels):
            running.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await running
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("relay ")] == []
    assert [sink.closed for sink in sinks] == [1, 1]


async def _until(reached: Callable[[list[operate.SinkInfo]], bool], queue: Queue) -> None:
    async def looked() -> bool:
        return reached(await operate.sinks(queue.database))

    await until(looked, within=20)


def test_a_filter_that_fails_lets_the_event_pass() -> None:
    from ..sinks.streaming import event

    def broken(_: object) -> bool:
        raise ValueError("a bug")

    wanted = Subscription(name="stream", from_log=True, accepts=broken)
    assert wanted.wants(event())


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: EventStream().relays(Queue("postgresql://h/d")), "needs a destination"),
        (lambda: EventStream().to_kafka("a b", bootstrap="h:1"), "the kafka sink 'kafka' cannot be: topic"),
        (
            lambda: EventStream().to_kafka("a", bootstrap="h:1").to_kafka("b", bootstrap="h:1"),
            "are named 'kafka'",
        ),
        (lambda: EventStream().to_kinesis("s", shards=3), "the kinesis sink 'kinesis' cannot be: shards"),
        (lambda: EventStream().with_filter("data.x >"), "does not parse"),
    ],
)
def test_what_cannot_be_is_said_when_it_is_put_together(build: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(Misconfigured, match=complaint):
        build()


# --- the same by settings -------------------------------------------------------------------------


def test_short_variables_make_the_sinks() -> None:
    loaded = settings_room.load(
        env={
            "HAMMERWORK_KAFKA_EVENTS_BOOTSTRAP": "a:9092, b:9092",
            "HAMMERWORK_KAFKA_EVENTS_TOPIC": "job-events",
            "HAMMERWORK_SINKS__KAFKA__DELIVERY": "transactional",
            "HAMMERWORK_KINESIS_STREAM": "job-stream",
        }
    )
    kafka, kinesis = (loaded.sinks[name].options.model_dump() for name in ("kafka", "kinesis"))
    assert (kafka["bootstrap"], kafka["topic"], kafka["delivery"]) == (
        ("a:9092", "b:9092"), "job-events", "transactional",
    )  # fmt: skip
    assert kinesis["stream"] == "job-stream"
    outlets = build_parts(loaded).outlets
    assert all(outlet.subscription.from_log and outlet.one_by_one is None for outlet in outlets.values())


def test_logins_and_tls_by_variables() -> None:
    loaded = settings_room.load(
        env={
            "HAMMERWORK_SINKS__BUS__TYPE": "kafka",
            "HAMMERWORK_SINKS__BUS__BOOTSTRAP": "a:9092",
            "HAMMERWORK_SINKS__BUS__TOPIC": "jobs.{queue}",
            "HAMMERWORK_SINKS__BUS__TLS": "true",
            "HAMMERWORK_SINKS__BUS__SASL__MECHANISM": "SCRAM-SHA-512",
            "HAMMERWORK_SINKS__BUS__SASL__USERNAME": "hammerwork",
            "HAMMERWORK_SINKS__BUS__SASL__PASSWORD": "hunter2",
        }
    )
    options = loaded.sinks["bus"].options
    assert getattr(options, "sasl").password.get_secret_value() == "hunter2"  # noqa: B009
    assert not any("hunter2" in source.value for source in loaded.sources())


@pytest.mark.parametrize("given", ["retry = ['5s']", "concurrency = 3", "disable_after = '1d'"])
def test_what_a_log_sink_does_not_heed_is_refused(given: str, tmp_path: Any) -> None:
    file = tmp_path / "hammerwork.toml"
    file.write_text(f"[sinks.bus]\ntype = 'kafka'\nbootstrap = 'h:1'\ntopic = 't'\n{given}\n")
    with pytest.raises(Misconfigured, match=r"sinks.bus: a kafka sink takes no") as refused:
        build_parts(settings_room.load(file, env={}))
    assert "tries until it is through" in refused.value.hint
