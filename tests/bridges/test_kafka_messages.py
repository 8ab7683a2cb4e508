"""What Kafka's producers may send, as the messages, jobs and dead letters that become of it."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from hammerwork.bridges.kafka.content import json_headers, read_record
from hammerwork.clients.identity import HeaderIdentity, JsonIdentity
from hammerwork.core.ingest.intake import IntakeLimits
from hammerwork.core.message import Message
from hammerwork.core.postgres.database import Database

from ..chaos.running import running
from ..services.kafka import KafkaService
from .kafka_topic import Topic, kept, pull_all, topic_on, until

GOOD = b'{"id": "good"}'
BINARY = b"\xff\xfe\x00"
BASE64 = {"base64": base64.b64encode(BINARY).decode()}


class Record(NamedTuple):
    """As aiokafka gives it."""

    value: bytes | None = GOOD
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp: int | None = 1_700_000_000_123
    topic: str = "orders"
    partition: int = 3
    offset: int = 7


def message(**parts: Any) -> Message:
    return read_record(Record(**parts), "offset")


def test_a_record_with_everything() -> None:
    found = message(key=b"k", headers=(("content-type", b"application/json"), ("n", b"1")))
    assert found == Message(
        body=GOOD,
        key="k",
        headers={"content-type": "application/json", "n": "1"},
        content_type="application/json",
        timestamp=datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC),
        coordinates={"broker": "kafka", "topic": "orders", "partition": 3, "offset": 7},
    )


def test_a_key_without_a_body_is_a_tombstone_and_a_body_without_a_key_is_none() -> None:
    tombstone = message(value=None, key=b"k")
    assert (tombstone.tombstone, tombstone.key, tombstone.body) == (True, "k", b"")
    assert not message(value=b"", key=b"k").tombstone
    assert not message(value=None, key=None).tombstone
    assert message(key=None).key is None


@pytest.mark.parametrize("key", [BINARY, b"a\0b"])
def test_a_key_that_postgres_cannot_hold_is_kept_as_base64(key: bytes) -> None:
    found = message(key=key)
    assert found.key is None
    assert found.coordinates["key_base64"] == base64.b64encode(key).decode()


@pytest.mark.parametrize("timestamp", [None, -1, 292_278_994 * 31_556_952_000, -(2**63)])
def test_a_time_that_no_calendar_knows_is_none(timestamp: int | None) -> None:
    assert message(timestamp=timestamp).timestamp is None


def test_headers_may_be_void_binary_and_repeated() -> None:
    given = (("a", b"1"), ("void", None), ("a", None), ("bin", BINARY), ("a", b"3"), ("", b""))
    assert json_headers(given) == ({"a": ["1", None, "3"], "void": None, "bin": BASE64, "": ""}, False)


def test_headers_without_end_are_cut_and_it_is_said() -> None:
    many = tuple((f"h{n}", b"x") for n in range(1000))
    assert len(message(headers=many).headers) == 256
    assert message(headers=many).coordinates["headers_truncated"] is True
    large = (("small", b"1"), ("large", b"x" * 100_000), ("last", b"2"))
    assert message(headers=large).headers == {"small": "1", "last": "2"}


@pytest.mark.parametrize(
    ("identity", "parts", "expected"),
    [
        ("offset", {}, None),
        (HeaderIdentity(header="id"), {"headers": (("id", b"m1"),)}, "m1"),
        (HeaderIdentity(header="id"), {"headers": (("id", None),)}, None),
        (HeaderIdentity(header="id"), {"headers": (("id", b"1"), ("id", b"2"))}, None),
        (JsonIdentity(pointer="/order/id"), {"value": b'{"order": {"id": 7}}'}, "7"),
        (JsonIdentity(pointer="/order/id"), {"value": b"not JSON"}, None),
        (JsonIdentity(pointer="/order/id"), {"value": None}, None),
    ],
)
def test_what_is_an_identity(identity: Any, parts: Any, expected: str | None) -> None:
    assert read_record(Record(**parts), identity).id == expected


# --- and through the broker, into the database ---


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "both null": ({"value": None}, "empty_body"),
    "empty": ({"value": b"", "key": b"k"}, "empty_body"),
    "garbage": ({"value": b"\xc3\x28"}, "utf"),
    "garbage under a key that is no text": ({"value": b"{", "key": BINARY}, "not_json"),
    "a schema registry's magic byte": ({"value": b"\0" + struct.pack(">I", 4711) + b"avro"}, "not_json"),
    "a false gzip": ({"value": b"no", "headers": [("content-encoding", b"gzip")]}, "gzip"),
    "a bomb": ({"value": gzip.compress(b"0" * 5_000_000), "headers": [("content-encoding", b"gzip")]}, ""),
    "another type": ({"value": GOOD, "headers": [("content-type", b"application/avro")]}, "content_type"),
    "NUL": ({"value": b'{"id": "\\u0000"}'}, "nul"),
    "a header with NUL": ({"value": GOOD, "headers": [("nul\0", b"\0")]}, "nul"),
    "too large": ({"value": b'"' + b"x" * 2_000_000 + b'"'}, "large"),
}
ODD: dict[str, dict[str, Any]] = {
    "no key": {},
    "a key that is no text": {"key": BINARY},
    "an empty key": {"key": b""},
    "a key with NUL": {"key": b"a\0b"},
    "no time": {"timestamp_ms": -1},
    "a time beyond all calendars": {"timestamp_ms": 2**62},
    "a time to come": {"timestamp_ms": 4_000_000_000_000},
    "void, binary and repeated headers": {"headers": [("a", None), ("a", BINARY), ("b", b"x")]},
    "a torn trace": {"headers": [("traceparent", BINARY), ("tracestate", b"=;=,")]},
}


async def test_each_bad_record_becomes_a_dead_letter_and_the_good_one_behind_it_a_job(
    kafka_service: KafkaService, database: Database
) -> None:
    async with topic_on(kafka_service, max_message_bytes="4000000") as topic:
        for name, (parts, _) in BAD.items():
            await (topic.send(**parts) if parts["value"] is not None else topic.send_nothing())
            await topic.send(json.dumps({"id": f"after {name}"}).encode())
        intake = topic.intake(database, partition_fetch_size=100_000)
        async with running(intake):
            await until(lambda: _read(database, topic, 2 * len(BAD)), "all are read")
            assert intake.counts.reconnects == 0
    async with database.transaction() as connection:
        letters = await connection.fetch(
            "select (coordinates ->> 'offset')::int as at, reason, body, coordinates, message"
            " from hammerwork.dead_letters order by at"
        )
        jobs = await connection.fetchval("select count(*) from hammerwork.jobs")
    assert [row["at"] for row in letters] == list(range(0, 2 * len(BAD), 2))
    assert jobs == len(BAD)
    for (name, (parts, reason)), row in zip(BAD.items(), letters, strict=True):
        assert reason in row["reason"], f"{name}: {row['reason']}"
        assert row["body"] == (parts["value"] or b"")[: 1024 * 1024]


async def test_each_odd_record_becomes_a_job(kafka_service: KafkaService, database: Database) -> None:
    async with topic_on(kafka_service, message_timestamp_after_max_ms=str(2**63 - 1)) as topic:
        for name, parts in ODD.items():
            await topic.send(json.dumps({"id": name}).encode(), **parts)
        intake = topic.intake(database)
        async with running(intake):
            await until(lambda: _read(database, topic, len(ODD)), "all are read")
    async with database.transaction() as connection:
        rows = await connection.fetch("select payload ->> 'id' as id from hammerwork.jobs")
        letters = await connection.fetch("select reason, detail from hammerwork.dead_letters")
    assert letters == []
    assert {row["id"] for row in rows} == ODD.keys()


async def test_every_compression_is_read(topic: Topic, database: Database) -> None:
    for kind in ("gzip", "snappy", "lz4", "zstd"):
        async with topic.producer(compression_type=kind) as producer:
            await producer.send_and_wait(topic.name, json.dumps({"id": kind, "pad": "x" * 2000}).encode())
    bridge = topic.bridge(database)
    await bridge.open()
    found = [json.loads(d.message.body)["id"] for d in await pull_all(bridge, 4)]
    await bridge.close()
    assert found == ["gzip", "snappy", "lz4", "zstd"]


async def test_a_tombstone_cancels_the_job_of_its_key(topic: Topic, database: Database) -> None:
    await topic.send(b'{"id": "kept"}', key=b"a")
    await topic.send(b'{"id": "gone"}', key=b"b")
    await topic.send(None, key=b"b")
    intake = topic.intake(database, IntakeLimits(tombstones="cancel"))
    async with running(intake):
        await until(lambda: _read(database, topic, 3), "all are read")
    async with database.transaction() as connection:
        rows = await connection.fetch("select payload ->> 'id' as id from hammerwork.jobs")
    assert [row["id"] for row in rows] == ["kept"]


async def test_a_record_that_its_producer_sent_twice_is_one_job_where_it_has_an_identity(
    topic: Topic, database: Database
) -> None:
    for name in ("m1", "m2", "m1"):
        await topic.send(GOOD, headers=[("id", name.encode())])
    intake = topic.intake(database, identity={"header": "id"})
    async with running(intake):
        await until(lambda: _read(database, topic, 3), "all are read")
    assert (intake.counts.stored, intake.counts.duplicates) == (2, 1)


async def _read(database: Database, topic: Topic, count: int) -> bool:
    return (await kept(database)).get(f"{topic.name}/0") == count
