"""A stream sink in the gateway: events to Kafka, and what an operator sees and does."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from hammerwork import EventStream
from hammerwork.core import operate
from hammerwork.core.job import Job
from hammerwork.core.publish.log_relay import LogRelay
from hammerwork.core.queue import Queue
from hammerwork.gateway.check import check
from hammerwork.gateway.settings import Settings, load

from ..core.running import running as relays_running
from ..core.running import until
from ..services.kafka import KafkaService
from ..services.postgres import PostgresService
from ..sinks.kafka_reader import read_topic
from .command import Hammerwork
from .test_app import running


@pytest.fixture
async def topic(kafka_service: KafkaService) -> str:
    if not kafka_service.apache:
        pytest.skip("the light broker knows no idempotent producers")
    name = f"gateway.{secrets.token_hex(6)}"
    await kafka_service.create_topic(name, partitions=2)
    return name


def environment(kafka: KafkaService, topic: str) -> dict[str, str]:
    return {
        "HAMMERWORK_KAFKA_EVENTS_BOOTSTRAP": kafka.bootstrap,
        "HAMMERWORK_KAFKA_EVENTS_TOPIC": topic,
        "HAMMERWORK_SINKS__KAFKA__DELIVERY": "transactional",
        "HAMMERWORK_SINKS__KAFKA__TRANSACTIONAL_ID": topic,
        "HAMMERWORK_SINKS__KAFKA__EVENTS": "job.enqueued",
        "HAMMERWORK_SINKS__KAFKA__MAX_RECORD_BYTES": "2KiB",
    }


def settings_for(dsn: str, kafka: KafkaService, topic: str) -> Settings:
    base = {"HAMMERWORK_DATABASE_URL": dsn, "HAMMERWORK_HTTP__PORT": "0"}
    return load(None, base | environment(kafka, topic))


async def test_a_stream_is_checked_runs_pauses_replays_and_tells_of_itself(
    queue: Queue, dsn: str, kafka_service: KafkaService, topic: str, hammerwork: Hammerwork
) -> None:
    settings = settings_for(dsn, kafka_service, topic)
    found = {finding.subject: finding for finding in (await check(settings)).findings}
    assert found["sink kafka"].summary == "exactly-once in effect"

    async def sink() -> operate.SinkInfo:
        (info,) = await operate.sinks(queue.database)
        return info

    async def caught_up() -> bool:
        known = await operate.sinks(queue.database)
        return bool(known) and known[0].behind == 0

    async with running(settings) as gateway, aiohttp.ClientSession() as session:
        await until(caught_up)
        began = datetime.now(UTC) - timedelta(seconds=5)
        await queue.enqueue_many([Job("orders", n) for n in range(5)])

        async def taken(count: int) -> bool:
            return len(await read_topic(kafka_service.bootstrap, topic)) == count

        await until(lambda: taken(5))
        async with session.get(f"{gateway.address}/readyz") as answer:
            components = (await answer.json())["components"]
        assert components["sink.kafka"]["state"] == "running"
        async with session.get(f"{gateway.address}/metrics") as answer:
            metrics = await answer.text()
        assert 'hammerwork_sink_events_taken_total{sink="kafka"} 5.0' in metrics
        assert 'hammerwork_sink_lag_seconds{sink="kafka"} 0.0' in metrics

        await operate.pause_sink(queue.database, "kafka", "maintenance")
        await queue.enqueue(Job("orders", "later"))

        async def waits() -> bool:
            return (await sink()).behind == 1

        await until(waits)
        assert (await sink()).state == "paused"
        await operate.resume_sink(queue.database, "kafka")
        await until(lambda: taken(6))

        replayed = await hammerwork(
            "sink", "replay", "kafka", "--since", began.isoformat(), more=environment(kafka_service, topic)
        )
        assert replayed.out.strip() == "6"
        await until(lambda: taken(12))

    records = [json.loads(record.value) for record in await read_topic(kafka_service.bootstrap, topic)]
    assert len({record["id"] for record in records}) == 6
    await operate.remove_sink(queue.database, "kafka")
    assert await operate.sinks(queue.database) == []


async def test_two_deployments_may_name_a_sink_alike(
    queue: Queue, dsn: str, postgres_service: PostgresService, kafka_service: KafkaService, topic: str
) -> None:
    name = f"bus-{secrets.token_hex(4)}"
    other_dsn = await postgres_service.create_database()
    async with Queue(other_dsn) as other:
        await other.migrate()
        streams = [
            EventStream()
            .to_kafka(topic, bootstrap=kafka_service.bootstrap, name=name, delivery="transactional")
            .with_events("job.enqueued")
            .relays(each)[0]
            for each in (queue, other)
        ]
        async with relays_running(streams[0]), relays_running(streams[1]):
            for turn in range(1, 4):
                for each, stream in zip((queue, other), streams, strict=True):

                    async def known(each: Queue = each) -> bool:
                        return len(await operate.sinks(each.database)) == 1

                    await until(known)
                    await each.enqueue(Job("orders", turn))

                    async def taken(stream: LogRelay = stream, turn: int = turn) -> bool:
                        return stream.counts.taken == turn

                    await until(taken)
    assert [stream.counts.reopened for stream in streams] == [0, 0]
    assert len(await read_topic(kafka_service.bootstrap, topic)) == 6


async def test_a_gateway_that_stops_notes_what_it_sent(
    queue: Queue, dsn: str, kafka_service: KafkaService, topic: str
) -> None:
    settings = settings_for(dsn, kafka_service, topic)
    for turn in range(1, 3):
        async with running(settings) as gateway:

            async def opened() -> bool:
                return (
                    bool(await operate.sinks(queue.database))
                    and gateway.relays["kafka"].status.state == "running"
                )

            await until(opened)
            await queue.enqueue_many([Job("orders") for _ in range(20)])

            async def sent(count: int = 20 * turn) -> bool:
                return len(await read_topic(kafka_service.bootstrap, topic)) >= count

            await until(sent)
    assert len(await read_topic(kafka_service.bootstrap, topic)) == 40
