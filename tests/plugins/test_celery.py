"""Celery's messages become jobs, through the real RabbitMQ; the bytes are those that Celery 5.7 sends."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aio_pika
import pytest

from hammerwork.core.errors import BadMessage
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.draft import Draft
from hammerwork.core.ingest.intake import Intake
from hammerwork.core.ingest.mapping import CallableMapping, Expressions, FieldMapping
from hammerwork.core.job import Job, Priority
from hammerwork.core.message import Message
from hammerwork.core.queue import Queue
from hammerwork.gateway.message_bridge import MessageBridge
from hammerwork.plugins import celery

TASK_ID = "4cc7438e-afd4-4f8f-a2f3-f46567e7ca77"
NOTHING_FOLLOWS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def headers(**changed: Any) -> dict[str, Any]:
    """The headers of protocol 2, as `celery.app.amqp.AMQP.as_task_v2` makes them."""
    return {
        "lang": "py", "task": "shop.tasks.charge", "id": TASK_ID, "shadow": None, "eta": None,
        "expires": None, "group": None, "group_index": None, "retries": 0, "timelimit": [None, None],
        "root_id": TASK_ID, "parent_id": None, "argsrepr": "(7, 'EUR')", "kwargsrepr": "{'dry': True}",
        "origin": "gen41@web1", "ignore_result": False, "replaced_task_nesting": 0,
        "stamped_headers": None, "stamps": {},
    } | changed  # fmt: skip


def body(**follow_ups: Any) -> list[Any]:
    return [[7, "EUR"], {"dry": True}, NOTHING_FOLLOWS | follow_ups]


def protocol_1(**changed: Any) -> dict[str, Any]:
    """The body of protocol 1, as `as_task_v1` makes it."""
    return {
        "task": "shop.tasks.charge", "id": TASK_ID, "args": [7, "EUR"], "kwargs": {"dry": True},
        "group": None, "group_index": None, "retries": 2, "eta": None, "expires": None, "utc": True,
        "callbacks": None, "errbacks": None, "timelimit": [None, None], "taskset": None, "chord": None,
    } | changed  # fmt: skip


def envelope(**changed: Any) -> dict[str, Any]:
    """What kombu's virtual transports put around a message."""
    return {
        "body": base64.b64encode(json.dumps(body()).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers(),
        "properties": {
            "correlation_id": TASK_ID, "reply_to": "", "delivery_mode": 2, "priority": 0,
            "delivery_info": {"exchange": "", "routing_key": "celery"}, "body_encoding": "base64",
            "delivery_tag": "0a6b8f04-0f3f-4d0e-9b1c-5b6f3a8f7a11",
        },
    } | changed  # fmt: skip


def drafted(given: Any, **of: Any) -> Draft:
    draft = celery.to_draft(Message(body=b"", headers=of), given)
    assert draft is not None
    return draft


# --- on the real broker --------------------------------------------------------------------------


@pytest.fixture
async def channel(rabbitmq_url: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    async with await aio_pika.connect(rabbitmq_url) as connection:
        yield await connection.channel()


async def send(
    channel: aio_pika.abc.AbstractChannel, to: str, content: Any, of: dict[str, Any], **properties: Any
) -> None:
    """As kombu does: the character set stands where AMQP wants the compression."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    said = {"content_type": "application/json", "content_encoding": "utf-8", "correlation_id": TASK_ID}
    message = aio_pika.Message(raw, headers=of, delivery_mode=2, priority=0, **(said | properties))
    await channel.default_exchange.publish(message, routing_key=to)


async def received(intake: Intake, count: int) -> None:
    for _ in range(1000):
        if intake.counts.received >= count:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"{intake.counts.received} of {count} messages came within twenty seconds")


async def test_tasks_of_a_celery_application_become_jobs_and_what_cannot_a_dead_letter(
    channel: aio_pika.abc.AbstractChannel, rabbitmq_url: str, queue: Queue
) -> None:
    source = await channel.declare_queue(f"celery.{secrets.token_hex(6)}", durable=True)
    eta = datetime.now(UTC) + timedelta(hours=1)
    await send(channel, source.name, body(), headers(id="1"))
    await send(channel, source.name, body(), headers(id="1"))
    await send(channel, source.name, body(), headers(id="2", eta=eta.isoformat(), timelimit=[90, 60]))
    await send(channel, source.name, protocol_1(id="3"), {}, correlation_id="3")
    await send(channel, source.name, body(), headers(id="4", expires="2020-01-01T00:00:00+00:00"))
    await send(channel, source.name, body(chain=[{"task": "shop.tasks.mail"}]), headers(id="5"))
    pickled = {"content_type": "application/x-python-serialize", "content_encoding": "binary"}
    await send(channel, source.name, b"\x80\x04]\x94.", headers(id="6"), **pickled)
    bridge = (
        MessageBridge()
        .from_rabbitmq(rabbitmq_url, queue=source.name, identity={"header": "id"})
        .to_queue(map=Expressions(queue="'celery.' + body.task.split('.')[0]"), transform=celery.to_draft)
    )
    intake = bridge.intake(queue)
    running = asyncio.create_task(intake.run())
    try:
        await received(intake, 7)
    finally:
        intake.stop()
        await running
        await source.delete(if_unused=False, if_empty=False)

    jobs = {str(job.headers["id"]): job for job in await queue.jobs(queue="celery.shop")}
    assert {key: job.payload for key, job in jobs.items()} == {
        key: {"task": "shop.tasks.charge", "args": [7, "EUR"], "kwargs": {"dry": True}} for key in "123"
    }
    assert jobs["2"].run_at == eta
    assert jobs["1"].correlation_id == "1"
    assert jobs["3"].correlation_id == "3"
    assert jobs["3"].headers["retries"] == 2
    assert "argsrepr" not in jobs["1"].headers
    assert intake.counts.duplicates == 1
    assert intake.counts.filtered == 1
    assert intake.counts.dead_lettered == {"celery_workflow": 1, "unsupported_content_type": 1}


# --- what a message says -------------------------------------------------------------------------


def test_both_protocols_and_the_envelope_give_the_same_job() -> None:
    text = json.dumps(envelope())
    given = [
        drafted(body(), **headers()),
        drafted(envelope()),
        drafted(text),
        drafted(base64.b64encode(text.encode()).decode()),
        drafted(envelope(body=json.dumps(body()), properties={"body_encoding": "utf-8"})),
    ]
    assert len({repr(draft) for draft in given}) == 1
    assert drafted(protocol_1()).payload == given[0].payload
    assert {draft.correlation_id for draft in (*given, drafted(protocol_1()))} == {TASK_ID}


def test_a_time_without_a_zone_is_utc_unless_the_message_denies_it() -> None:
    assert drafted(protocol_1(eta="2031-11-17T12:30:56.527191")).run_at == datetime(
        2031, 11, 17, 12, 30, 56, 527191, UTC
    )
    with pytest.raises(BadMessage, match="no time zone"):
        drafted(protocol_1(eta="2031-11-17T12:30:56", utc=False))


@pytest.mark.parametrize(
    ("limits", "timeout"),
    [([90, 60], 90), ([None, 60], 60), ([None, None], None), ([0, None], None), (None, None), ("x", None)],
)
def test_the_hard_time_limit_goes_before_the_soft_one(limits: Any, timeout: int | None) -> None:
    expected = None if timeout is None else timedelta(seconds=timeout)
    assert drafted(body(), **headers(timelimit=limits)).timeout == expected


def test_a_task_that_has_expired_is_left_out_and_one_that_has_not_is_taken() -> None:
    def of(expires: datetime) -> Draft | None:
        return celery.to_draft(Message(body=b"", headers=headers(expires=expires.isoformat())), body())

    assert of(datetime.now(UTC) - timedelta(seconds=1)) is None
    assert of(datetime.now(UTC) + timedelta(minutes=1)) is not None


@pytest.mark.parametrize("what", ["chain", "chord", "callbacks", "errbacks"])
def test_a_task_that_others_follow_is_refused(what: str) -> None:
    with pytest.raises(BadMessage, match=f"celery_workflow: shop.tasks.charge has {what} to follow it"):
        drafted(body(**{what: [{"task": "shop.tasks.mail"}]}), **headers())
    with pytest.raises(BadMessage, match="celery_workflow"):
        drafted(protocol_1(**{what: [{"task": "shop.tasks.mail"}]}))


@pytest.mark.parametrize(
    ("given", "of", "reason"),
    [
        ({"order": 7}, {}, "not_celery"),
        (body(), {}, "not_celery"),
        ([[], {}], headers(), "not_celery"),
        (7, headers(), "not_celery"),
        (None, headers(), "not_celery"),
        (protocol_1(task=None), {}, "not_celery"),
        (protocol_1(args={"a": 1}), {}, "not_celery"),
        (protocol_1(kwargs=[1]), {}, "not_celery"),
        ([[], {}, "x"], headers(), "not_celery"),
        (protocol_1(eta="soon"), {}, "bad_run_at"),
        (protocol_1(eta=17), {}, "bad_run_at"),
        (envelope(**{"content-type": "application/x-python-serialize"}), {}, "unsupported_content_type"),
        (envelope(**{"content-type": "application/x-yaml"}), {}, "unsupported_content_type"),
        (envelope(body="%%%"), {}, "not_celery"),
        (envelope(body=base64.b64encode(b"{'a': 1}").decode()), {}, "not_json"),
        (envelope(body=base64.b64encode(b'{"a": 1, "a": 2}').decode()), {}, "duplicate_key"),
        (envelope(headers=None), {}, "not_celery"),
        ("no base64 !", {}, "not_celery"),
        (base64.b64encode(b"\x80\x04]\x94.").decode(), {}, "not_utf8"),
    ],
)
def test_what_is_no_task_is_refused_with_its_reason(given: Any, of: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadMessage) as refused:
        celery.to_draft(Message(body=b"", headers=of), given)
    assert refused.value.reason == reason


# --- what the settings add -----------------------------------------------------------------------


async def mapped(mapping: CallableMapping, message: Message) -> Job:
    job = await mapping.map(message, Decoder().decode(message).value, "celery")
    assert job is not None
    return job


async def test_expressions_see_the_task_and_go_before_what_it_says() -> None:
    run_at = datetime.now(UTC) + timedelta(days=1)
    message = Message(
        body=json.dumps(protocol_1(eta=run_at.isoformat(), timelimit=[9, 5])).encode(), priority=9
    )
    plain = CallableMapping(celery.to_draft, FieldMapping("jobs", max_attempts=3, priority_from_broker=True))
    job = await mapped(plain, message)
    assert (job.queue, job.max_attempts, job.priority) == ("jobs", 3, Priority.CRITICAL)
    assert (job.run_at, job.timeout) == (run_at, timedelta(seconds=9))

    expressions = Expressions(
        delay="1", timeout="2", max_attempts="int(headers.retries) + 1", correlation_id="headers.id + '!'",
        priority="body.task.startsWith('shop.') ? 'high' : 'low'",
    )  # fmt: skip
    ruled = CallableMapping(celery.to_draft, FieldMapping("jobs", expressions=expressions))
    job = await mapped(ruled, message)
    assert (job.run_at, job.delay, job.timeout) == (None, timedelta(seconds=1), timedelta(seconds=2))
    assert (job.max_attempts, job.priority, job.correlation_id) == (3, Priority.HIGH, TASK_ID + "!")


async def test_what_postgres_cannot_store_is_refused_inside_a_task_too() -> None:
    mapping = CallableMapping(celery.to_draft, FieldMapping("jobs"))
    hidden = envelope(body=base64.b64encode(json.dumps([["\0"], {}, None]).encode()).decode())
    with pytest.raises(BadMessage, match="nul_character"):
        await mapping.map(Message(body=b""), hidden, "celery")
