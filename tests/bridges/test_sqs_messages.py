"""What a producer may put into SQS, readable or not: envelopes, bodies in S3, identities, bad inputs."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hammerwork.bridges.sqs import SqsBridge
from hammerwork.core.errors import BadMessage, Misconfigured
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake, IntakeLimits
from hammerwork.core.ingest.mapping import FieldMapping
from hammerwork.core.message import Fate, Receipt
from hammerwork.core.postgres.database import Database

from ..services.aws_proxy import AwsProxy, Json, answering, failing_entries, rewriting
from .rabbitmq_producer import disconnected, pull_all, pull_one, stored, until
from .sqs_producer import Bucket, SqsProducer, create_queue, notification, pointer


@asynccontextmanager
async def opened(sqs: SqsProducer, **settings: Any) -> AsyncIterator[SqsBridge]:
    bridge = SqsBridge("orders", sqs.options(**settings))
    await bridge.open()
    try:
        yield bridge
    finally:
        await bridge.close()


async def refused(bridge: SqsBridge) -> BadMessage:
    [delivery] = await pull_all(bridge, 1)
    assert delivery.refused is not None
    return delivery.refused


# --- envelopes -----------------------------------------------------------------------------------


async def test_a_notification_is_unwrapped_with_its_attributes(sqs: SqsProducer) -> None:
    attributes = {
        "tenant": {"Type": "String", "Value": "acme"},
        "token": {"Type": "Binary", "Value": "AP8="},
        "list": {"Type": "String.Array", "Value": '["a"]'},
    }
    await sqs.send(notification('{"order": 7}', Subject="an order", MessageAttributes=attributes))
    async with opened(sqs, unwrap="sns", identity="envelope_id") as bridge:
        message = await pull_one(bridge)
    assert message.body == b'{"order": 7}'
    assert message.id == "5f1c8a9e-0000-4000-8000-000000000001"
    assert message.headers == {"tenant": "acme", "token": {"base64": "AP8="}, "list": '["a"]'}
    said = message.coordinates["sns"]
    assert isinstance(said, dict)
    assert said["topic"] == "arn:aws:sns:eu-central-1:123456789012:orders"
    assert said["subject"] == "an order"


async def test_auto_takes_what_is_no_notification_as_it_is(sqs: SqsProducer) -> None:
    bodies = ['{"order": 1}', '{"TopicArn": "a", "Type": "Notification"}', "not JSON", '["TopicArn"]']
    for body in [notification('{"order": 0}'), *bodies]:
        await sqs.send(body)
    async with opened(sqs, unwrap="auto") as bridge:
        found = {d.message.body.decode() for d in await pull_all(bridge, 5)}
    assert found == {'{"order": 0}', *bodies}


async def test_what_must_be_an_envelope_and_is_none_is_refused_with_its_bytes(sqs: SqsProducer) -> None:
    sent = await sqs.send('{"order": 1}', attributes={"tenant": "acme"})
    async with opened(sqs, unwrap="sns") as bridge:
        [delivery] = await pull_all(bridge, 1)
    assert delivery.refused is not None
    assert delivery.refused.reason == "no_envelope"
    assert delivery.message.body == b'{"order": 1}'
    assert delivery.message.headers == {"tenant": "acme"}
    assert delivery.message.id == sent


async def test_an_event_of_eventbridge_gives_its_detail(sqs: SqsProducer) -> None:
    event = {
        "version": "0", "id": "e-1", "detail-type": "Order Placed", "source": "shop", "account": "1",
        "time": "2026-11-24T12:00:00Z", "region": "eu-central-1", "resources": [], "detail": {"order": "ü"},
    }  # fmt: skip
    await sqs.send(json.dumps(event))
    async with opened(sqs, unwrap="eventbridge", identity="envelope_id") as bridge:
        message = await pull_one(bridge)
    assert (message.body.decode(), message.id) == ('{"order":"ü"}', "e-1")
    said = message.coordinates["eventbridge"]
    assert isinstance(said, dict)
    assert (said["detail_type"], said["source"]) == ("Order Placed", "shop")


# --- identities ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "expected"),
    [({"attribute": "order"}, "o-1"), ({"json": "/order/id"}, "77"), ({"attribute": "none"}, None)],
)
async def test_a_business_key_names_a_message_and_its_own_id_where_there_is_none(
    sqs: SqsProducer, identity: dict[str, str], expected: str | None
) -> None:
    sent = await sqs.send('{"order": {"id": 77}}', attributes={"order": "o-1"})
    async with opened(sqs, identity=identity) as bridge:
        assert (await pull_one(bridge)).id == (expected or sent)


async def test_the_identity_is_the_same_on_every_delivery(sqs: SqsProducer) -> None:
    await sqs.send()
    async with opened(sqs) as bridge:
        first = await pull_one(bridge)
    async with opened(sqs) as bridge:
        second = await pull_one(bridge)
    assert first.id == second.id
    assert (first.attempt, second.attempt) == (1, 2)


# --- bodies in S3 --------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_body_in_s3_is_fetched_and_its_object_deleted_after_the_message(
    sqs: SqsProducer, bucket: Bucket, wrapped: bool
) -> None:
    body = json.dumps({"order": "x" * 2_000_000}).encode()
    place = await bucket.put("a/b", body)
    await sqs.send(notification(place) if wrapped else place, attributes={"ExtendedPayloadSize": len(body)})
    async with opened(sqs, payload_buckets=[bucket.name], delete_payloads=True, unwrap="auto") as bridge:
        deliveries = await pull_all(bridge, 1)
        assert deliveries[0].message.body == body
        assert deliveries[0].message.coordinates["payload"] == f"s3://{bucket.name}/a/b"
        await bridge.settle(stored(deliveries))
    assert await sqs.empty()
    assert await bucket.keys() == []


async def test_the_object_stays_while_anybody_may_need_it(
    sqs: SqsProducer, bucket: Bucket, aws_proxy: AwsProxy
) -> None:
    """Of a dead letter, also when it comes again, of a message that was not deleted, and unless it is asked
    for."""
    for key in ("kept", "dead", "dead again", "undeleted"):
        await bucket.put(key, b"{}")
    await sqs.send(pointer(bucket.name, "kept"))
    async with opened(sqs, payload_buckets=[bucket.name]) as bridge:
        await bridge.settle(stored(await pull_all(bridge, 1)))
    async with opened(sqs, payload_buckets=[bucket.name], delete_payloads=True) as bridge:
        await sqs.send(pointer(bucket.name, "dead"))
        await bridge.settle([Receipt(d, Fate.DEAD_LETTERED) for d in await pull_all(bridge, 1)])
        await sqs.send(pointer(bucket.name, "dead again"))
        await bridge.settle([Receipt(d, Fate.DUPLICATE, job_id=None) for d in await pull_all(bridge, 1)])
        await sqs.send(pointer(bucket.name, "undeleted"))
        aws_proxy.plan("DeleteMessageBatch", failing_entries("ReceiptHandleIsInvalid", 0))
        await bridge.settle(stored(await pull_all(bridge, 1)))
    assert await bucket.keys() == ["dead", "dead again", "kept", "undeleted"]


async def test_an_object_that_cannot_be_deleted_is_left_and_nothing_else_happens(
    sqs: SqsProducer, bucket: Bucket, aws_proxy: AwsProxy
) -> None:
    await sqs.send(await bucket.put("a", b"{}"))
    aws_proxy.always("DELETE", answering(403, "AccessDenied"))
    async with opened(sqs, payload_buckets=[bucket.name], delete_payloads=True) as bridge:
        await bridge.settle(stored(await pull_all(bridge, 1)))
    assert await sqs.empty()


async def test_without_buckets_a_pointer_is_a_body_like_any_other(sqs: SqsProducer) -> None:
    await sqs.send(pointer("elsewhere", "a"))
    async with opened(sqs) as bridge:
        assert (await pull_one(bridge)).body == pointer("elsewhere", "a").encode()


async def test_s3_away_holds_the_bridge_and_the_message_comes_again(
    sqs: SqsProducer, bucket: Bucket, aws_proxy: AwsProxy
) -> None:
    await sqs.send(await bucket.put("a", b"{}"))
    aws_proxy.always("GET", answering(503, "SlowDown"))
    async with opened(sqs, payload_buckets=[bucket.name]) as bridge:
        await disconnected(bridge)
        await bridge.close()
        aws_proxy.always("GET", None)
        await bridge.open()
        assert (await pull_one(bridge)).body == b"{}"


async def test_a_bucket_that_must_not_be_read_is_a_fault_of_the_settings(
    sqs: SqsProducer, bucket: Bucket, aws_proxy: AwsProxy
) -> None:
    """S3 says 403 of an object that is missing, too, to whoever may not list the bucket."""
    await sqs.send(await bucket.put("a", b"{}"))
    aws_proxy.always("GET", answering(403, "AccessDenied"))
    async with opened(sqs, payload_buckets=[bucket.name]) as bridge:
        with pytest.raises(Misconfigured) as fault:
            await pull_all(bridge, 1)
    assert "s3:ListBucket" in fault.value.hint


async def test_a_bucket_that_is_not_there_is_a_fault_of_the_settings(sqs: SqsProducer) -> None:
    await sqs.send(pointer("no-such-bucket", "a"))
    async with opened(sqs, payload_buckets=["no-such-bucket"]) as bridge:
        with pytest.raises(Misconfigured, match="NoSuchBucket") as fault:
            await pull_all(bridge, 1)
    assert fault.value.hint == "payload_buckets names a bucket that is not there"


# --- bad inputs ----------------------------------------------------------------------------------


def intake_of(
    database: Database, sqs: SqsProducer, limits: IntakeLimits | None = None, **settings: Any
) -> Intake:
    bridge = SqsBridge("orders", sqs.options(**settings))
    return Intake(database, bridge, Decoder(), FieldMapping("work"), limits, kind="sqs")


@asynccontextmanager
async def ingesting(intake: Intake) -> AsyncIterator[None]:
    running = asyncio.create_task(intake.run(), name="intake")
    try:
        yield
    finally:
        intake.stop()
        await running


async def reasons(database: Database) -> dict[str, str]:
    """Message id to reason of every dead letter."""
    async with database.acquire() as connection:
        rows = await connection.fetch("select message_id, reason from hammerwork.dead_letters")
    return {row["message_id"]: row["reason"] for row in rows}


async def test_every_bad_body_becomes_a_dead_letter_and_the_good_go_on(
    database: Database, sqs: SqsProducer, bucket: Bucket
) -> None:
    """One stream of all of them, each beside a good one; then the queue is empty."""
    large = await bucket.put("large", b"x" * 200)
    bad = {
        "payload_missing": pointer(bucket.name, "nothing"),
        "foreign_bucket": pointer("elsewhere", "a"),
        "too_large": large,
        "not_json": '{"control": "\x7f\x85\ufffd',
        "trailing_garbage": "{} {}",
        "duplicate_key": notification('{"a": 1, "a": 2}'),
        "lone_surrogate": '{"a": "\\ud800"}',
        "not_utf8": notification("placeholder").replace("placeholder", "\\ud800"),
        "nul_character": '{"a": "\\u0000"}',
        "empty_body": notification(""),
    }
    expected = {}
    for reason, body in bad.items():
        expected[await sqs.send(body)] = reason
        await sqs.send(f'{{"good": "{reason}"}}')
    kept: dict[str, Any] = {"payload_buckets": [bucket.name], "payload_bytes": 100, "unwrap": "auto"}
    intake = intake_of(database, sqs, **kept)
    async with ingesting(intake):
        await until(sqs.empty)
    assert intake.counts.stored == len(bad)
    assert await reasons(database) == expected


async def test_a_dead_letter_that_is_a_pointer_is_not_replayed_as_a_body(
    database: Database, sqs: SqsProducer, bucket: Bucket
) -> None:
    await sqs.send(pointer(bucket.name, "nothing"))
    intake = intake_of(database, sqs, payload_buckets=[bucket.name])
    async with ingesting(intake):
        await until(sqs.empty)
    async with database.acquire() as connection:
        encoding = await connection.fetchval(
            "select message ->> 'content_encoding' from hammerwork.dead_letters"
        )
    with pytest.raises(BadMessage, match="s3-pointer"):
        Decoder().unpack(b"[]", encoding)


async def test_base64_is_taken_off_and_refused_where_it_is_none(database: Database, sqs: SqsProducer) -> None:
    packed = base64.b64encode(gzip.compress(b'{"order": 1}')).decode()
    await sqs.send(packed, attributes={"content-encoding": "gzip"})
    await sqs.send(base64.b64encode(b'{"order": 2}').decode())
    expected = {await sqs.send("{}"): "bad_base64", await sqs.send("e30"): "bad_base64"}
    expected[await sqs.send(packed[:24], attributes={"content-encoding": "gzip"})] = "bad_gzip"
    intake = intake_of(database, sqs, encoding="base64")
    async with ingesting(intake):
        await until(sqs.empty)
    assert intake.counts.stored == 2  # counted by the end of the run, behind the delete
    assert await reasons(database) == expected


@pytest.mark.parametrize("what", ["MD5OfBody", "MD5OfMessageAttributes"])
async def test_a_message_with_a_wrong_checksum_is_refused(
    sqs: SqsProducer, aws_proxy: AwsProxy, what: str
) -> None:
    def garble(answer: Json) -> Json:
        for message in answer.get("Messages", []):
            message[what] = "0" * 32
        return answer

    aws_proxy.always("ReceiveMessage", rewriting(garble))
    await sqs.send(attributes={"tenant": "acme", "token": b"\x00"})
    async with opened(sqs) as bridge:
        assert (await refused(bridge)).reason == "checksum_mismatch"


async def test_ten_attributes_of_every_type_have_the_right_checksum(
    sqs: SqsProducer, sqs_bridge: SqsBridge
) -> None:
    attributes: dict[str, Any] = {f"n{n}": f"ü{n}" for n in range(6)}
    attributes |= {"number": ("Number.float", "NaN"), "image": ("Binary.gif", b"\x00GIF")}
    attributes |= {"bridge": "not ours", "origin": "forged"}
    await sqs.send(attributes=attributes)
    [delivery] = await pull_all(sqs_bridge, 1)
    assert delivery.refused is None
    assert delivery.message.headers["image"] == {"base64": "AEdJRg=="}
    assert delivery.message.coordinates["broker"] == "sqs"


@pytest.mark.parametrize("count", ["1000", "", "-1", "9" * 30, "two"])
async def test_a_receive_count_of_any_kind_is_no_trouble_and_may_be_too_high(
    database: Database, sqs: SqsProducer, aws_proxy: AwsProxy, count: str
) -> None:
    def recount(answer: Json) -> Json:
        for message in answer.get("Messages", []):
            message["Attributes"] |= {"ApproximateReceiveCount": count, "SentTimestamp": count}
        return answer

    aws_proxy.always("ReceiveMessage", rewriting(recount))
    sent = await sqs.send()
    intake = intake_of(database, sqs, IntakeLimits(max_deliveries=5))
    async with ingesting(intake):
        await until(sqs.empty)
    assert await reasons(database) == ({sent: "too_many_deliveries"} if count == "1000" else {})
    assert intake.counts.stored == (count != "1000")


async def test_the_same_deduplication_id_with_another_body_is_a_conflict(
    database: Database, fifo: SqsProducer
) -> None:
    """SQS itself drops it for five minutes only; the second queue stands for the time after that."""
    url = await create_queue(fifo.client, fifo=True)
    later = SqsProducer(fifo.client, fifo.service, url, fifo.endpoint)
    for queue, body in ((fifo, '{"n": 1}'), (later, '{"n": 1}'), (later, '{"n": 2}')):
        dedupe = "order-1" if body == '{"n": 1}' else "order-2"
        await queue.send(body, MessageGroupId="g", MessageDeduplicationId=dedupe)
    await fifo.send('{"n": 3}', MessageGroupId="g", MessageDeduplicationId="order-2")
    for queue in (fifo, later):
        intake = intake_of(database, queue, identity="deduplication_id")
        async with ingesting(intake):
            await until(queue.empty)
    assert (intake.counts.stored, intake.counts.duplicates) == (0, 1)
    assert list((await reasons(database)).values()) == ["id_conflict"]
    await fifo.client.delete_queue(QueueUrl=url)


async def test_the_largest_body_is_taken(sqs: SqsProducer, sqs_bridge: SqsBridge) -> None:
    body = json.dumps("ü" * 131_000, ensure_ascii=False)
    assert 262_000 < len(body.encode()) <= 262_144
    await sqs.send(body)
    assert (await pull_one(sqs_bridge)).body == body.encode()
