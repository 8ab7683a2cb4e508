"""The Kafka sink on Apache Kafka: what a record is, what is taken, what dies, and what is sent again."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from aiokafka.partitioner import murmur2 as theirs

from hammerwork.core.errors import Disconnected, Misconfigured
from hammerwork.core.identity import new_id
from hammerwork.core.job import Dead, Done, Outcome, Retry, Snooze
from hammerwork.sinks.kafka import KafkaSink, KafkaSinkOptions
from hammerwork.sinks.kafka.addressing import MANY, murmur2

from ..services.kafka import PASSWORD, USER, KafkaService
from .kafka_reader import read_topic
from .streaming import NO_JOB, assert_in_order, event, events, send_all


@pytest.fixture
def kafka(kafka_service: KafkaService) -> KafkaService:
    if not kafka_service.apache:
        pytest.skip("the light broker knows no idempotent producers")
    return kafka_service


@pytest.fixture
async def topic(kafka: KafkaService) -> str:
    name = f"events.{secrets.token_hex(6)}"
    await kafka.create_topic(name, partitions=3)
    return name


@asynccontextmanager
async def opened(kafka: KafkaService, topic: str, **options: Any) -> AsyncIterator[KafkaSink]:
    given = {"bootstrap": kafka.bootstrap, "topic": topic, "transactional_id": None, **options}
    sink = KafkaSink("stream", KafkaSinkOptions.model_validate(given))
    try:
        await sink.open()
        yield sink
    finally:
        await sink.close()


def transactional(topic: str) -> dict[str, Any]:
    return {"delivery": "transactional", "transactional_id": f"hw.{topic}"}


# --- what a record is -----------------------------------------------------------------------------


async def test_a_record_is_a_cloudevent_keyed_by_its_job(kafka: KafkaService, topic: str) -> None:
    told = event(data={"attempt": 1, "note": "naïve ✓"})
    async with opened(kafka, topic, headers={"team": "billing"}) as sink:
        assert await sink.send([told], "mark") == [Done()]
    (record,) = await read_topic(kafka.bootstrap, topic)
    assert record.key.decode() == str(told.job_id)
    assert record.timestamp == int(told.at.timestamp() * 1000)
    assert dict(record.headers) == {
        "team": b"billing",
        "content-type": b"application/cloudevents+json; charset=UTF-8",
    }
    assert json.loads(record.value) == {
        "specversion": "1.0",
        "id": str(told.id),
        "source": "/hammerwork",
        "type": "dev.hammerwork.job.completed",
        "time": told.time,
        "datacontenttype": "application/json",
        "sequence": "0000000001",
        "subject": str(told.job_id),
        "partitionkey": str(told.job_id),
        "data": {"job_id": str(told.job_id), "queue": "orders", "attempt": 1, "note": "naïve ✓"},
    }


async def test_binary_cloudevents_have_their_attributes_as_headers(kafka: KafkaService, topic: str) -> None:
    told, jobless = event(data={}), event(NO_JOB, 0, type="sink.disabled", queue=None, data={"sink": "crm"})
    async with opened(kafka, topic, format="cloudevents-binary") as sink:
        assert await sink.send([told, jobless], "mark") == [Done(), Done()]
    records = {record.key.decode(): record for record in await read_topic(kafka.bootstrap, topic)}
    record = records[str(told.job_id)]
    headers = {name: value.decode() for name, value in record.headers}
    assert headers == {
        "ce_specversion": "1.0",
        "ce_id": str(told.id),
        "ce_source": "/hammerwork",
        "ce_type": "dev.hammerwork.job.completed",
        "ce_time": told.time,
        "ce_sequence": "0000000001",
        "ce_subject": str(told.job_id),
        "ce_partitionkey": str(told.job_id),
        "content-type": "application/json",
    }
    assert json.loads(record.value) == {"job_id": str(told.job_id), "queue": "orders"}
    other = records[str(jobless.id)]
    assert json.loads(other.value) == {"job_id": None, "queue": None, "sink": "crm"}
    assert not {"ce_subject", "ce_partitionkey"} & dict(other.headers).keys()


async def test_plain_json_is_flat(kafka: KafkaService, topic: str) -> None:
    told = event(sequence=4, data={"attempt": 2})
    async with opened(kafka, topic, format="json") as sink:
        await sink.send([told], "mark")
    (record,) = await read_topic(kafka.bootstrap, topic)
    assert json.loads(record.value) == {
        "id": str(told.id),
        "type": "job.completed",
        "job_id": str(told.job_id),
        "sequence": 4,
        "queue": "orders",
        "time": told.time,
        "data": {"attempt": 2},
    }


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_compression_is_read_back(kafka: KafkaService, topic: str, compression: str) -> None:
    sent = events(10, 3)
    async with opened(kafka, topic, compression=compression) as sink:
        assert set((await send_all(sink, sent)).values()) == {Done()}
    records = await read_topic(kafka.bootstrap, topic)
    assert sorted(json.loads(r.value)["id"] for r in records) == sorted(str(e.id) for e in sent)


async def test_topics_by_queue_and_keys_by_expression(kafka: KafkaService, topic: str) -> None:
    for queue in ("orders", "billing"):
        await kafka.create_topic(f"{topic}.{queue}", partitions=2)
    sent = [
        event(queue=queue, data={"customer": f"c{n % 2}"})
        for n, queue in enumerate(["orders", "billing"] * 4)
    ]
    async with opened(kafka, f"{topic}.{{queue}}", key="queue + ':' + data.customer") as sink:
        assert set((await send_all(sink, sent)).values()) == {Done()}
    orders = await read_topic(kafka.bootstrap, f"{topic}.orders")
    assert [record.key for record in orders] == [b"orders:c0"] * 4
    assert len({record.partition for record in orders}) == 1
    assert len(await read_topic(kafka.bootstrap, f"{topic}.billing")) == 4


def test_keys_go_where_other_clients_put_them() -> None:
    keys = [b"", b"a", b"ab", b"abc", b"abcd", *(str(new_id()).encode()[: n % 37] for n in range(300))]
    keys += [b"\xff" * n for n in range(40)]
    keys += [bytes([n]) * 7 for n in range(MANY)]
    assert murmur2(keys) == [theirs(key) for key in keys]
    assert [murmur2([key])[0] for key in keys] == [theirs(key) for key in keys]


async def test_the_events_of_a_job_stay_in_order_over_many_small_batches(
    kafka: KafkaService, topic: str
) -> None:
    sent = events(30, 20)
    async with opened(kafka, topic, batch_bytes=2048) as sink:
        assert set((await send_all(sink, sent)).values()) == {Done()}
    records = [json.loads(record.value) for record in await read_topic(kafka.bootstrap, topic)]
    assert len(records) == 600
    assert_in_order((record["subject"], int(record["sequence"])) for record in records)


# --- what is not taken ----------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", ["idempotent", "transactional"])
async def test_a_record_beyond_our_limit_dies_and_its_neighbours_live(
    kafka: KafkaService, topic: str, delivery: str
) -> None:
    sent = events(4, 2)
    sent[2] = sent[2]._replace(text=json.dumps({"text": "x" * 50_000}))
    mode = transactional(topic) if delivery == "transactional" else {}
    async with opened(kafka, topic, max_record_bytes=40_000, **mode) as sink:
        outcomes = await send_all(sink, sent)
    dead = outcomes.pop(sent[2].id)
    assert isinstance(dead, Dead)
    assert dead.reason.startswith("too_large: ")
    assert "max_record_bytes = 40000" in dead.reason
    assert set(outcomes.values()) == {Done()}
    assert len(await read_topic(kafka.bootstrap, topic)) == 7


async def test_a_record_that_the_topic_refuses_dies_alone(kafka: KafkaService, topic: str) -> None:
    small = f"{topic}.small"
    await kafka.create_topic(small, partitions=1, max_message_bytes="3000")
    sent = events(6, 3)
    sent[7] = sent[7]._replace(text=json.dumps({"text": secrets.token_hex(4000)}))
    async with opened(kafka, small) as sink:
        outcomes = await send_all(sink, sent)
    assert isinstance(outcomes.pop(sent[7].id), Dead)
    assert set(outcomes.values()) == {Done()}
    records = [json.loads(record.value) for record in await read_topic(kafka.bootstrap, small)]
    assert len(records) == 17
    assert_in_order((record["subject"], int(record["sequence"])) for record in records)


async def test_a_batch_that_is_too_large_in_a_transaction_goes_through_in_the_end(
    kafka: KafkaService, topic: str
) -> None:
    small = f"{topic}.small"
    await kafka.create_topic(small, partitions=1, max_message_bytes="3000")
    sent = events(6, 3)
    sent[7] = sent[7]._replace(text=json.dumps({"text": secrets.token_hex(4000)}))
    pending, dead = list(sent), []
    async with opened(kafka, small, **transactional(topic)) as sink:
        for _ in range(6):
            try:
                outcomes = await sink.send(pending, "9:0:log")
            except Disconnected:
                await sink.close()
                await sink.open()
                continue
            dead += [o for o in outcomes if isinstance(o, Dead)]
            pending = [e for e, o in zip(pending, outcomes, strict=True) if not isinstance(o, Done | Dead)]
            if not pending:
                break
        assert not pending
        assert await sink.open() == "9:0:log"
    assert len(dead) == 1
    assert len(await read_topic(kafka.bootstrap, small)) == 17


async def test_an_unknown_topic_is_said_and_other_topics_go_on(kafka: KafkaService, topic: str) -> None:
    await kafka.create_topic(f"{topic}.orders")
    sent = [event(queue="orders"), event(queue="nowhere"), event(queue="orders")]
    async with opened(kafka, f"{topic}.{{queue}}") as sink:
        outcomes = await sink.send(sent, "mark")
    assert [type(outcome) for outcome in outcomes] == [Done, Retry, Done]
    assert isinstance(outcomes[1], Retry)
    assert f"the topic '{topic}.nowhere' cannot be used" in outcomes[1].reason


async def test_many_unknown_topics_do_not_take_the_time_of_those_that_are_there(
    kafka: KafkaService, topic: str
) -> None:
    prefix, _, queue = topic.rpartition(".")
    sent = [event(queue=queue), *(event(queue=f"{queue}-{number}") for number in range(12))]
    async with opened(kafka, f"{prefix}.{{queue}}") as sink, asyncio.timeout(15):
        done, *others = await sink.send(sent, "mark")
    assert done == Done()
    assert all(isinstance(outcome, Retry) for outcome in others)


async def test_a_key_that_is_no_text_is_a_dead_event(kafka: KafkaService, topic: str) -> None:
    async with opened(kafka, topic, key="data.customer") as sink:
        outcomes = await sink.send(
            [event(data={"customer": "c"}), event(data={}), event(data={"customer": 7})], "mark"
        )
    assert outcomes[0] == Done()
    assert isinstance(outcomes[1], Dead)
    assert outcomes[1].reason.startswith("mapping_failed: key = `data.customer`")
    assert outcomes[2] == Dead("no_key: the key's expression answers int, not text")


async def test_a_topic_that_cannot_be_named_is_a_dead_event_and_others_go_on(
    kafka: KafkaService, topic: str
) -> None:
    prefix = f"{topic}.{'x' * (249 - len(topic) - len('.orders.'))}"
    await kafka.create_topic(f"{prefix}.orders")
    sent = [event(), event(queue="orders-of-others"), event(), event(queue="über")]
    async with opened(kafka, f"{prefix}.{{queue}}") as sink:
        outcomes = await sink.send(sent, "mark")
    assert (outcomes[0], outcomes[2]) == (Done(), Done())
    why = "Kafka takes 1 to 249 letters, digits, `.`, `_`, `-`"
    assert outcomes[1] == Dead(f"bad_topic: '{prefix}.orders-of-others' (259 characters): {why}")
    assert outcomes[3] == Dead(f"bad_topic: '{prefix}.über' (247 characters): {why}")


# --- the order of a job ---------------------------------------------------------------------------


async def test_nothing_of_a_partition_goes_on_behind_a_batch_that_was_refused(
    kafka: KafkaService, topic: str
) -> None:
    # A broker that has never heard of the producer takes whatever number its first batch has, so nothing but
    # the sink itself keeps the second one back.
    small = f"{topic}.small"
    await kafka.create_topic(small, partitions=1, max_message_bytes="3000")
    job = new_id()
    sent = [event(job, number, data={"text": secrets.token_hex(900)}) for number in (1, 2)]
    sent.append(event(job, 3))
    async with opened(kafka, small, batch_bytes=4800) as sink:
        assert not {Done()} & set(await sink.send(sent, "mark"))
        assert await read_topic(kafka.bootstrap, small) == []
        assert set((await send_all(sink, sent)).values()) == {Done()}
    records = await read_topic(kafka.bootstrap, small)
    assert [int(json.loads(record.value)["sequence"]) for record in records] == [1, 2, 3]


async def test_later_events_of_a_job_wait_for_one_whose_topic_is_missing(
    kafka: KafkaService, topic: str
) -> None:
    for kind in ("job.enqueued", "job.completed"):
        await kafka.create_topic(f"{topic}.{kind}")
    waits, goes = new_id(), new_id()
    sent = [
        event(job, number, type=kind)
        for number, kind in enumerate(["job.enqueued", "job.started", "job.completed"], 1)
        for job in (waits, goes)
        if (job, kind) != (goes, "job.started")
    ]
    async with opened(kafka, f"{topic}.{{type}}") as sink:
        last, pending = dict[UUID, Outcome](), sent
        for _ in range(3):
            outcomes = await sink.send(pending, "mark")
            last |= {e.id: outcome for e, outcome in zip(pending, outcomes, strict=True)}
            pending = [e for e in pending if last[e.id] != Done()]
        assert [(e.job_id, e.sequence) for e in pending] == [(waits, 2), (waits, 3)]
        assert isinstance(last[pending[0].id], Retry)
        assert last[pending[1].id] == Snooze(timedelta(0))
        await kafka.create_topic(f"{topic}.job.started")
        assert set((await send_all(sink, pending)).values()) == {Done()}
    done = await read_topic(kafka.bootstrap, f"{topic}.job.completed")
    assert [json.loads(record.value)["subject"] for record in done] == [str(goes), str(waits)]


async def test_later_events_of_a_job_wait_for_one_that_another_topic_refused(
    kafka: KafkaService, topic: str
) -> None:
    await kafka.create_topic(f"{topic}.job.started", max_message_bytes="1500")
    await kafka.create_topic(f"{topic}.job.completed")
    job = new_id()
    started = [event(new_id() if n else job, 1, type="job.started") for n in range(6)]
    completed = event(job, 2, type="job.completed")
    async with opened(kafka, f"{topic}.{{type}}") as sink:
        outcomes = await sink.send([*started, completed], "mark")
        assert outcomes == [Snooze(timedelta(0))] * 7
        assert await read_topic(kafka.bootstrap, f"{topic}.job.completed") == []
        assert set((await send_all(sink, [*started, completed])).values()) == {Done()}
    assert len(await read_topic(kafka.bootstrap, f"{topic}.job.completed")) == 1


async def test_a_job_that_goes_to_and_fro_between_partitions_is_sent_in_its_order(
    kafka: KafkaService, topic: str
) -> None:
    by_arrival = f"{topic}.by-arrival"
    await kafka.create_topic(by_arrival, partitions=3, message_timestamp_type="LogAppendTime")
    job = new_id()
    sent = [event(job, number, data={"key": f"k{number % 7}"}) for number in range(1, 101)]
    async with opened(kafka, by_arrival, key="data.key") as sink:
        outcomes = await sink.send(sent, "mark")
        first = outcomes.index(Snooze(timedelta(0)))
        assert outcomes == [Done()] * first + [Snooze(timedelta(0))] * (100 - first)
        assert set((await send_all(sink, sent[first:])).values()) == {Done()}
    records = await read_topic(kafka.bootstrap, by_arrival)
    arrived = sorted((int(json.loads(r.value)["sequence"]), r.timestamp) for r in records)
    assert [sequence for sequence, _ in arrived] == list(range(1, 101))
    assert len({record.partition for record in records}) == 3
    assert [at for _, at in arrived] == sorted(at for _, at in arrived)

    async with opened(kafka, topic, key="data.key", **transactional(topic)) as sink:
        assert set(await sink.send(sent, "1:0:log")) == {Done()}  # seen together or not at all


# --- faults ---------------------------------------------------------------------------------------


async def test_a_producer_that_was_fenced_is_rebuilt_and_the_position_believed(
    kafka: KafkaService, topic: str
) -> None:
    sent = events(3, 2)
    async with opened(kafka, topic, **transactional(topic)) as first:
        assert set(await first.send(sent[:3], "1:0:log")) == {Done()}
        async with opened(kafka, topic, **transactional(topic)) as second:
            with pytest.raises(Disconnected, match="Fenced"):
                await first.send(sent[3:], "2:0:log")
            assert set(await second.send(sent[3:], "3:0:log")) == {Done()}
        await first.close()
        assert await first.open() == "3:0:log"
    assert len(await read_topic(kafka.bootstrap, topic)) == 6


async def test_what_a_dead_process_left_in_a_transaction_is_never_seen(
    kafka: KafkaService, topic: str
) -> None:
    async with opened(kafka, topic, **transactional(topic)) as sink:
        assert await sink.send([event()], "1:0:log") == [Done()]
        producer = sink._producer
        assert producer is not None
        await producer.begin_transaction()
        await (await producer.send(topic, b"half", partition=0))
        await sink.close()
        assert await sink.open() == "1:0:log"
        assert await sink.send([event()], "2:0:log") == [Done()]
    assert len(await read_topic(kafka.bootstrap, topic)) == 2
    assert len(await read_topic(kafka.bootstrap, topic, isolation="read_uncommitted")) == 3


async def test_a_broker_that_was_stopped_in_its_tracks_is_waited_for(kafka: KafkaService, topic: str) -> None:
    sent = events(10, 2)
    async with opened(kafka, topic, request_timeout=2) as sink:
        assert set(await sink.send(sent[:10], "mark")) == {Done()}
        kafka.suspend()
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await sink.send(sent[10:], "mark")
            await sink.close()
        finally:
            kafka.resume()
        await sink.open()
        assert set((await send_all(sink, sent[10:])).values()) == {Done()}
    records = [json.loads(record.value) for record in await read_topic(kafka.bootstrap, topic)]
    assert {record["id"] for record in records} == {str(e.id) for e in sent}
    assert_in_order((record["subject"], int(record["sequence"])) for record in records)


# --- what is refused at start ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"topic": "jobs events"}, "is no topic"),
        ({"topic": "jobs.{kind}"}, "is no topic"),
        ({"bootstrap": "kafka://broker:9092"}, "expects host:port"),
        ({"headers": {"ce_id": "x"}}, "is set by the format"),
        ({"transactional_id": "x"}, "take effect with delivery"),
        ({"topic": "jobs.{queue}", "delivery": "transactional"}, "position_topic is needed"),
        ({"delivery": "transactional", "position_topic": "the place"}, "is no topic"),
        ({"compression": "brotli"}, "'none', 'gzip'"),
        ({"request_timeout": 60}, "19"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        KafkaSinkOptions.model_validate({"bootstrap": "broker:9092", "topic": "jobs", **options})


def test_a_key_that_does_not_parse_is_refused_when_the_sink_is_made() -> None:
    options = KafkaSinkOptions.model_validate({"bootstrap": "broker:9092", "topic": "jobs", "key": "jobid"})
    with pytest.raises(Misconfigured, match="unknown variable `jobid`"):
        KafkaSink("stream", options)


async def test_a_missing_topic_is_a_wrong_setting(kafka: KafkaService) -> None:
    with pytest.raises(Misconfigured, match="the topic 'nowhere' cannot be used"):
        async with opened(kafka, "nowhere"):
            pass
    sink = KafkaSink("stream", KafkaSinkOptions(bootstrap=(kafka.bootstrap,), topic="nowhere"))
    with pytest.raises(Misconfigured, match="the topic 'nowhere' cannot be used"):
        await sink.guarantee()


async def test_nobody_listening_is_disconnected() -> None:
    sink = KafkaSink("stream", KafkaSinkOptions(bootstrap=("127.0.0.1:1",), topic="jobs"))
    with pytest.raises(Disconnected, match=r"no broker of 127\.0\.0\.1:1"):
        await sink.open()
    with pytest.raises(Disconnected, match=r"no broker of 127\.0\.0\.1:1"):
        await sink.guarantee()


async def test_a_login_by_scram_works_and_a_wrong_one_is_said_without_its_password(
    kafka: KafkaService, topic: str
) -> None:
    if kafka.secured is None:
        pytest.skip("this broker has no listener for SASL")
    right = {"mechanism": "SCRAM-SHA-256", "username": USER, "password": PASSWORD}
    async with opened(kafka, topic, bootstrap=kafka.secured.sasl, sasl=right) as sink:
        assert await sink.send([event()], "mark") == [Done()]
    with pytest.raises(Misconfigured, match="refused the login") as refused:
        async with opened(kafka, topic, bootstrap=kafka.secured.sasl, sasl={**right, "password": "hunter2"}):
            pass
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("delivery", ["idempotent", "transactional"])
async def test_what_is_promised_is_said(kafka: KafkaService, topic: str, delivery: str) -> None:
    mode = transactional(topic) if delivery == "transactional" else {}
    async with opened(kafka, topic, **mode) as sink:
        promised = await sink.guarantee()
        assert await sink.send([event()], "mark") == [Done()]  # the running producer was not fenced
    assert promised.level == ("exactly-once in effect" if mode else "at-least-once")
    assert promised.warnings == (f"topic {topic} has one replica: its events are lost with that broker",)
