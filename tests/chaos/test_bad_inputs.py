"""Every bad message becomes a dead letter with its reason and its bytes, and the next good one a job."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from itertools import count
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from hammerwork.bridges.rabbitmq import RabbitmqBridge, RabbitmqOptions
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake, IntakeLimits
from hammerwork.core.ingest.mapping import CallableMapping, Expressions, FieldMapping, Mapper
from hammerwork.core.postgres.database import Database
from hammerwork.core.queue import Queue

from ..bridges.rabbitmq_producer import WireProperties
from ..services.postgres import PostgresService
from ..services.proxy import FaultProxy
from ..services.rabbitmq import RabbitmqService
from .ledger import Ledger, until
from .publisher import Publisher, message_properties
from .running import running
from .transforms import misbehave

pytestmark = [pytest.mark.chaos, pytest.mark.asyncio(loop_scope="module")]

CAP = 1024 * 1024
LIMIT = 1024 * 1024
QUEUES = ("work", "other.*")


def _maybe(name: str) -> str:
    return f"'{name}' in body ? body.{name} : null"


MAPPERS: Mapping[str, Mapper] = {
    "plain": FieldMapping(queue="work"),
    "expressions": FieldMapping(
        expressions=Expressions(
            queue="body.queue",
            priority=_maybe("priority"),
            delay=_maybe("delay"),
            max_attempts=_maybe("max_attempts"),
            timeout=_maybe("timeout"),
            correlation_id=_maybe("correlation"),
        ),
        allowed_queues=QUEUES,
    ),
    "times": FieldMapping(queue="work", expressions=Expressions(run_at="body.run_at")),
    "function": CallableMapping(misbehave, FieldMapping(queue="work"), timeout=timedelta(milliseconds=200)),
    "header": FieldMapping(queue="work"),
}
GOOD: Mapping[str, bytes] = {
    "plain": b'{"good": true}',
    "expressions": b'{"queue": "work"}',
    "times": b'{"run_at": null}',
    "function": b'{"good": true}',
    "header": b'{"good": true}',
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """`reason` None: the message is odd but good, and becomes a job."""

    body: bytes = b'{"odd": true}'
    reason: str | None = None
    mapper: str = "plain"
    properties: Mapping[str, Any] = field(default_factory=dict)
    wire: bytes | None = None
    """The message's properties as raw bytes."""


def _bad(reason: str, body: bytes, mapper: str = "plain", **properties: Any) -> Case:
    return Case(body=body, reason=reason, mapper=mapper, properties=properties)


def _odd(body: bytes = b'{"odd": true}', mapper: str = "plain", **properties: Any) -> Case:
    return Case(body=body, mapper=mapper, properties=properties)


def _does(what: str, reason: str) -> Case:
    return _bad(reason, json.dumps({"do": what}).encode(), "function")


def _says(reason: str, **body: Any) -> Case:
    return _bad(reason, json.dumps({"queue": "work"} | body).encode(), "expressions")


DEEP = 100_000
HEADER_TABLE = {
    "nested": {"a": {"b": [1, {"c": None}]}},
    "binary": bytearray(b"\xff\xfe\x00"),
    "void": None,
    "x-death": [{"count": 2**62, "queue": "elsewhere", "reason": "forged"}] * 200,
    "crlf": "a\r\nset-cookie: b",
    "hw-priority": "critical",
    "": "empty",
}

CASES: Mapping[str, Case] = {
    # common C1 to C19: the bytes
    "an empty body": _bad("empty_body", b""),
    "white space only": _bad("empty_body", b" \r\n\t "),
    "truncated JSON": _bad("not_json", b'{"a": [1, 2'),
    "trailing garbage": _bad("trailing_garbage", b'{"a": 1} x'),
    "two JSON texts": _bad("trailing_garbage", b'{"a": 1}{"a": 2}'),
    "a JSON string": _odd(b'"text"'),
    "a JSON number": _odd(b"7"),
    "a JSON array": _odd(b"[1]"),
    "a JSON null": _odd(b"null"),
    "a JSON true": _odd(b"true"),
    "an invalid byte": _bad("not_utf8", b'{"a": "\xff"}'),
    "an overlong encoding": _bad("not_utf8", b'{"a": "\xc0\xaf"}'),
    "a truncated character": _bad("not_utf8", b'{"a": "\xe2\x82"}'),
    "UTF-16 with a mark": _bad("byte_order_mark", '{"a": 1}'.encode("utf-16")),
    "UTF-16 without a mark": _bad("not_json", '{"a": 1}'.encode("utf-16-le")),
    "UTF-32": _bad("byte_order_mark", '{"a": 1}'.encode("utf-32")),
    "UTF-8 with a mark": _bad("byte_order_mark", b'\xef\xbb\xbf{"a": 1}'),
    "a NUL in a value": _bad("nul_character", b'{"a": "\\u0000"}'),
    "a NUL in a key": _bad("nul_character", b'{"\\u0000": 1}'),
    "a bare NUL": _bad("not_json", b'{"a": "\0"}'),
    "a lone surrogate": _bad("lone_surrogate", b'{"a": "\\ud800"}'),
    "NaN": _bad("not_finite", b'{"a": NaN}'),
    "minus infinity": _bad("not_finite", b'{"a": -Infinity}'),
    "1e400": _bad("number_out_of_range", b'{"a": 1e400}'),
    "1e131071": _bad("number_out_of_range", b"[" + b",".join([b"1e131071"] * 200) + b"]"),
    "minus zero": _odd(b'{"a": -0, "b": -0.0}'),
    "5000 digits": _bad("number_out_of_range", b'{"a": ' + b"7" * 5000 + b"}"),
    "more than 64 bits": _odd(b'{"a": 9223372036854775808000}'),
    "100000 arrays deep": _bad("too_deep", b"[" * DEEP + b"]" * DEEP),
    "100000 objects deep": _bad("too_deep", b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    "100000 of both deep": _bad("too_deep", b'[{"a":' * (DEEP // 2) + b"1" + b"}]" * (DEEP // 2)),
    "a repeated key": _bad("duplicate_key", b'{"a": 1, "a": 2}'),
    "20000 keys": _bad("too_many_keys", json.dumps({str(n): n for n in range(20_000)}).encode()),
    "a long key": _odd(json.dumps({"k" * 900_000: 1}).encode()),
    "a body at the limit": _odd(b'"' + b"x" * (LIMIT - 2) + b'"'),
    "a body over the limit by one": _bad("too_large", b'"' + b"x" * (LIMIT - 1) + b'"'),
    "a body of 6 MB in many frames": _bad("too_large", b"[" + b"7," * 3_000_000 + b"7]"),
    "gzip that is none": _bad("bad_gzip", b'{"a": 1}', content_encoding="gzip"),
    "truncated gzip": _bad("bad_gzip", gzip.compress(b'{"a": 1}')[:-5], content_encoding="gzip"),
    "double gzip": _bad("bad_gzip", gzip.compress(gzip.compress(b"{}")), content_encoding="gzip"),
    "a gzip bomb": _bad("compression_bomb", gzip.compress(b" " * 10**8), content_encoding="gzip"),
    "good gzip": _odd(gzip.compress(b'{"a": 1}'), content_encoding="gzip"),
    "an unknown encoding": _bad("unknown_content_encoding", b"{}", content_encoding="br"),
    "JSON labelled XML": _bad("unsupported_content_type", b'{"a": 1}', content_type="text/xml"),
    "XML labelled JSON": _bad("not_json", b"<a/>", content_type="application/json"),
    "a binary label": _bad("not_utf8", b"\x80\x81", content_type="application/octet-stream"),
    # C20 to C23: what expressions make of it
    "no queue": _bad("mapping_failed", b"{}", "expressions"),
    "SQL for a queue": _says("bad_queue_name", queue="'; DROP TABLE jobs--"),
    "a path for a queue": _says("bad_queue_name", queue="../etc"),
    "300 characters for a queue": _says("bad_queue_name", queue="q" * 300),
    "a confusable queue": _says("bad_queue_name", queue="w\u043erk"),
    "a queue that is not allowed": _says("queue_not_allowed", queue="payroll"),
    "a sink's queue": _says("queue_not_allowed", queue="sink.webhook"),
    "an object for a queue": _says("bad_queue_name", queue={"$ne": ""}),
    "a priority too high": _says("bad_priority", priority=5),
    "a negative priority": _says("bad_priority", priority=-1),
    "a broken priority": _says("bad_priority", priority=1.5),
    "an unknown priority": _says("bad_priority", priority="urgent"),
    "a negative delay": _says("bad_delay", delay=-1),
    "a delay of 10^30 s": _says("bad_delay", delay=1e30),
    "no attempts": _says("bad_max_attempts", max_attempts=0),
    "attempts in text": _says("bad_max_attempts", max_attempts="3"),
    "a time-out of nothing": _says("bad_timeout", timeout=0),
    "a long correlation": _says("bad_correlation_id", correlation="c" * 5000),
    "the year 0": _bad("bad_run_at", b'{"run_at": "0000-01-01T00:00:00Z"}', "times"),
    "the year 10000": _bad("bad_run_at", b'{"run_at": "10000-01-01T00:00:00Z"}', "times"),
    "the year 9999": _bad("bad_run_at", b'{"run_at": "9999-01-01T00:00:00Z"}', "times"),
    "a time without a zone": _bad("bad_run_at", b'{"run_at": "2026-11-23T10:00:00"}', "times"),
    "a zone of 99 hours": _bad("bad_run_at", b'{"run_at": "2026-11-23T10:00:00+99:00"}', "times"),
    # C24: identities
    "no identity": _odd(message_id=None),
    "an odd identity": _odd(message_id="a\r\n'; --\u202e\u0301"),
    "an identity of 255 bytes": _odd(message_id="\u20ac" * 85),
    "a NUL in the identity": _bad("nul_character", b"{}", message_id="a\0b"),
    "an identity of 10 kB": _odd(mapper="header", headers={"identity": "\u20ac" * 10_000}),
    "an empty identity": _odd(mapper="header", headers={"identity": ""}),
    "a list for an identity": _odd(mapper="header", headers={"identity": [1, 2]}),
    # C25, C26: headers
    "headers of every type": _odd(headers=HEADER_TABLE),
    "10000 headers": _odd(headers={f"h{n}": n for n in range(10_000)}),
    "a NUL in a header": _bad("nul_character", b"{}", headers={"a": "\0"}),
    "a malformed traceparent": _odd(headers={"traceparent": "00-zz", "tracestate": "\u20ac"}),
    # C28: functions
    "a function that raises": _does("raise", "transform_failed"),
    "a function that leaves the process": _does("exit", "mapping_failed"),
    "a function that recurses": _does("recurse", "transform_failed"),
    "a function that hangs": _does("hang", "transform_timeout"),
    "a refusal with an odd reason": _does(
        "refuse oddly", ("an odd\u2400 reason \ufffd" * 50)[:100]
    ),
    "a function that answers a number": _does("number", "transform_returned"),
    "a function that answers bytes": _does("bytes", "transform_returned"),
    "a function that answers a circle": _does("circular", "transform_returned"),
    "a function that answers a set": _does("set", "transform_returned"),
    "a function that answers NaN": _does("nan", "transform_returned"),
    "a function that answers a NUL": _does("nul", "transform_returned"),
    "a function that answers a surrogate": _does("surrogate", "transform_returned"),
    "a function that answers 5000 digits": _does("huge int", "transform_returned"),
    "a function that answers an odd key": _does("odd key", "transform_returned"),
    "a function that writes to a sink": _does("sink", "queue_not_allowed"),
    "a function with an odd priority": _does("huge priority", "bad_priority"),
    "a function with an odd correlation": _does("odd correlation", "nul_character"),
    "a function with an odd trace": _does("odd trace", "transform_returned"),
    "a function with odd headers": _does("odd headers", "transform_returned"),
    # RabbitMQ R1 to R14
    "no property at all": Case(wire=b"\x00\x00"),
    "an expiration": _odd(expiration="60000"),
    "priority 255": _odd(priority=255),
    "a spoofed reply": _odd(reply_to="../x\r\n", correlation_id="\u20ac" * 85),
    "an application that lies": _odd(app_id="hammerwork", message_type="job.completed"),
    "an identity that is not UTF-8": Case(wire=b"\x00\x80\x02\xff\xfe"),
    "a time beyond all years": Case(wire=b"\x00\x40" + b"\xff" * 8),
    "a header whose name is not UTF-8": Case(wire=b"\x20\x00\x00\x00\x00\x04\x01\xfft\x01"),
}  # fmt: skip


class Inlet:
    """A running intake with a mapper, a database and a broker's queue of its own."""

    def __init__(self, ledger: Ledger, publisher: Publisher, intake: Intake, mapper: str) -> None:
        self.ledger = ledger
        self.publisher = publisher
        self.intake = intake
        self.good = GOOD[mapper]
        self._numbers = count()

    async def send(self, case: Case) -> None:
        channel = await self.publisher.channel()
        properties = {"message_id": f"odd{next(self._numbers)}"} | dict(case.properties)
        made = message_properties(**properties)
        if case.wire is not None:
            made = WireProperties(case.wire)
        try:
            await channel.basic_publish(
                case.body, routing_key=self.publisher.queue, properties=made, timeout=10
            )
        except BaseException:
            await self.publisher.close()
            raise

    async def good_one_is_stored(self, within: float) -> None:
        key = f"good{next(self._numbers)}"
        await self.publisher.send(self.good, message_id=key, headers={"identity": key})
        await until(lambda: self._job(key), within, "the good message is stored")

    async def jobs(self) -> int:
        (row,) = await self.ledger.fetch("select count(*) from hammerwork.jobs")
        return int(row[0])

    async def letters(self) -> list[asyncpg.Record]:
        return await self.ledger.fetch("select * from hammerwork.dead_letters order by created_at, id")

    async def _job(self, key: str) -> bool:
        query = "select from hammerwork.jobs where origin ->> 'message_id' = $1"
        return bool(await self.ledger.fetch(query, key))


@asynccontextmanager
async def _inlet(
    postgres: PostgresService, rabbitmq: RabbitmqService, mapper: str, through: int | None = None
) -> AsyncIterator[Inlet]:
    """With `through`, Postgres is reached by the intake at that port."""
    dsn = await postgres.create_database()
    async with Queue(dsn) as queue:
        await queue.migrate()
    ledger = Ledger(dsn)
    await ledger.open()
    publisher = Publisher(rabbitmq.url, f"chaos.{secrets.token_hex(6)}")
    await (await publisher.channel()).queue_declare(publisher.queue, durable=True)
    options = {"url": rabbitmq.url, "queue": publisher.queue}
    if mapper == "header":
        options["identity"] = {"header": "identity"}  # type: ignore[assignment]
    url = dsn if through is None else postgres.dsn(dsn.rpartition("/")[2], port=through)
    try:
        async with Database(url, size=3) as database:
            intake = Intake(
                database,
                RabbitmqBridge("orders", RabbitmqOptions.model_validate(options)),
                Decoder(max_bytes=LIMIT),
                MAPPERS[mapper],
                IntakeLimits(dead_letter_bytes=CAP),
                kind="rabbitmq",
            )
            async with running(intake):
                yield Inlet(ledger, publisher, intake, mapper)
        assert await publisher.waiting() == 0, "something was never acknowledged"
    finally:
        await (await publisher.channel()).queue_delete(publisher.queue)
        await publisher.close()
        await postgres.drop_database(dsn)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def inlets(
    postgres_service: PostgresService, rabbitmq_service: RabbitmqService
) -> AsyncIterator[Mapping[str, Inlet]]:
    async with (
        _inlet(postgres_service, rabbitmq_service, "plain") as plain,
        _inlet(postgres_service, rabbitmq_service, "expressions") as expressions,
        _inlet(postgres_service, rabbitmq_service, "times") as times,
        _inlet(postgres_service, rabbitmq_service, "function") as function,
        _inlet(postgres_service, rabbitmq_service, "header") as header,
    ):
        yield {
            "plain": plain, "expressions": expressions, "times": times, "function": function, "header": header
        }  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_a_bad_message_is_buried_and_the_next_one_is_stored(
    inlets: Mapping[str, Inlet], name: str
) -> None:
    case = CASES[name]
    inlet = inlets[case.mapper]
    jobs, letters = await inlet.jobs(), await inlet.letters()

    await inlet.send(case)
    await inlet.good_one_is_stored(within=5 if case.wire else 2)

    assert inlet.intake.status.state == "running"
    made = (await inlet.letters())[len(letters) :]
    if case.reason is None:
        assert (await inlet.jobs(), made) == (jobs + 2, [])
        return
    assert await inlet.jobs() == jobs + 1
    (letter,) = made
    assert letter["reason"] == case.reason
    assert letter["bridge"] == "orders"
    assert letter["body"] == case.body[:CAP]
    assert letter["body_size"] == len(case.body)
    assert letter["body_sha256"] == sha256(case.body).digest()


async def test_an_identity_that_comes_again_with_another_body_is_a_conflict(
    inlets: Mapping[str, Inlet],
) -> None:
    inlet = inlets["plain"]
    jobs, letters = await inlet.jobs(), await inlet.letters()
    first, second = _odd(b'{"n": 1}', message_id="same"), _odd(b'{"n": 2}', message_id="same")
    for case in (first, second, first, second):
        await inlet.send(case)
        await inlet.good_one_is_stored(within=2)
    assert await inlet.jobs() == jobs + 5
    (letter,) = (await inlet.letters())[len(letters) :]
    assert (letter["reason"], letter["body"]) == ("id_conflict", b'{"n": 2}')


async def test_a_stream_of_which_every_other_message_is_bad_adds_up(
    postgres_service: PostgresService, rabbitmq_service: RabbitmqService
) -> None:
    dice = random.Random(20261125)
    names = [
        name
        for name, case in CASES.items()
        if case.mapper == "plain"
        and case.reason
        and "message_id" not in case.properties
        and len(case.body) < 50_000
    ]
    expected: Counter[str] = Counter()
    async with _inlet(postgres_service, rabbitmq_service, "plain") as inlet:
        good = 0
        for _ in range(20):
            batch = []
            for _ in range(100):
                if dice.random() < 0.5:
                    case = CASES[dice.choice(names)]
                    expected[str(case.reason)] += 1
                    batch.append(inlet.send(case))
                else:
                    inlet.ledger.acknowledged.add(f"m{good}")
                    body = json.dumps({"id": f"m{good}"}).encode()
                    batch.append(inlet.publisher.send(body, message_id=f"m{good}"))
                    good += 1
            await asyncio.gather(*batch)
        await until(lambda: _arrived(inlet, 2000), 20, "everything was settled")
        assert inlet.intake.status.state == "running"
        found = Counter(letter["reason"] for letter in await inlet.letters())
        assert found == expected
        assert await inlet.ledger.missing() == set()
        assert await inlet.jobs() == good


async def test_a_dead_letter_that_cannot_be_stored_yet_is_not_acknowledged(
    postgres_service: PostgresService, rabbitmq_service: RabbitmqService
) -> None:
    async with (
        FaultProxy(*postgres_service.address) as proxy,
        _inlet(postgres_service, rabbitmq_service, "plain", proxy.port) as inlet,
    ):
        await inlet.good_one_is_stored(within=10)
        proxy.refuse()
        await inlet.send(CASES["truncated JSON"])
        await until(lambda: _holding(inlet), 10, "the bridge holds")
        settled = inlet.intake.counts.received
        await until(lambda: _back_at_the_broker(inlet), 15, "the message went back to the broker")
        assert await inlet.letters() == []
        assert inlet.intake.counts.received == settled

        proxy.heal()
        await until(lambda: _buried(inlet, 1), 15, "it is stored once Postgres is back")
        await inlet.good_one_is_stored(within=5)
        assert inlet.intake.status.state == "running"
        (letter,) = await inlet.letters()
        assert (letter["reason"], letter["body"]) == ("not_json", CASES["truncated JSON"].body)


async def _arrived(inlet: Inlet, wanted: int) -> bool:
    return inlet.intake.counts.received >= wanted


async def _holding(inlet: Inlet) -> bool:
    return inlet.intake.status.state == "holding"


async def _back_at_the_broker(inlet: Inlet) -> bool:
    return await inlet.publisher.waiting() == 1


async def _buried(inlet: Inlet, wanted: int) -> bool:
    return len(await inlet.letters()) == wanted
