"""What a producer may put into a message, readable or not, and what the bridge makes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from aiormq import spec

from hammerwork.bridges.rabbitmq import RabbitmqBridge
from hammerwork.bridges.rabbitmq.content import json_headers
from hammerwork.core.message import Message

from .rabbitmq_producer import (
    Producer,
    WireKey,
    WireProperties,
    pull_all,
    pull_one,
    stored,
)


async def test_properties_are_carried_over(producer: Producer, bridge: RabbitmqBridge) -> None:
    sent_at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    await producer.send(
        b"{}",
        message_id="m1",
        priority=255,
        correlation_id="c1",
        timestamp=sent_at,
        content_type="application/json",
        content_encoding="gzip",
        app_id="shop",
        message_type="order",
        reply_to="somewhere",
        user_id="guest",
        expiration="60000",
        headers={"traceparent": "00-1-2-3", "tracestate": "a=b"},
    )
    assert await pull_one(bridge) == Message(
        body=b"{}",
        id="m1",
        priority=255,
        correlation_id="c1",
        timestamp=sent_at,
        content_type="application/json",
        content_encoding="gzip",
        headers={"traceparent": "00-1-2-3", "tracestate": "a=b"},
        coordinates={
            "broker": "rabbitmq",
            "queue": producer.queue,
            "exchange": "",
            "routing_key": producer.queue,
            "redelivered": False,
            "app_id": "shop",
            "type": "order",
            "reply_to": "somewhere",
            "user_id": "guest",
            "expiration": "60000",
        },
    )


async def test_a_message_without_any_property_is_a_message(
    producer: Producer, bridge: RabbitmqBridge
) -> None:
    await producer.send_raw(b"bare", WireProperties(b"\x00\x00"))
    message = await pull_one(bridge)
    assert (message.body, message.id, message.headers, message.attempt) == (b"bare", None, {}, None)
    assert (message.priority, message.timestamp, message.content_type) == (None, None, None)


async def test_headers_of_every_type_become_json(producer: Producer, bridge: RabbitmqBridge) -> None:
    await producer.send(
        headers={
            "text": "grüße",
            "yes": True,
            "small": -5,
            "large": 2**62,
            "real": 1.5,
            "nothing": None,
            "decimal": Decimal("12.34"),
            "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            "bytes": bytearray(b"text"),
            "binary": bytearray(b"\xff\x00"),
            "list": [1, "two", [3.0, {"four": None}]],
            "table": {"inner": {"innermost": [True]}},
        }
    )
    assert (await pull_one(bridge)).headers == {
        "text": "grüße",
        "yes": True,
        "small": -5,
        "large": 2**62,
        "real": 1.5,
        "nothing": None,
        "decimal": "12.34",
        "time": "2026-01-02T03:04:05Z",
        "bytes": "text",
        "binary": {"base64": "/wA="},
        "list": [1, "two", [3.0, {"four": None}]],
        "table": {"inner": {"innermost": [True]}},
    }


def test_numbers_that_json_does_not_have_become_text() -> None:
    # RabbitMQ refuses them; other brokers of the protocol need not.
    headers, truncated = json_headers({"nan": float("nan"), "all": [float("inf"), -float("inf")]})
    assert headers == {"nan": "nan", "all": ["inf", "-inf"]}
    assert not truncated


async def test_huge_headers_are_cut_and_marked(producer: Producer, bridge: RabbitmqBridge) -> None:
    deep: dict[str, Any] = {"end": 1}
    for _ in range(40):
        deep = {"down": deep}
    for headers in (
        {f"h{n}": n for n in range(300)},
        {"a": 1, "b": "x" * 70_000, "c": 2},
        {"a": 1, "d": deep},
    ):
        await producer.send(headers=headers)
    many, large, nested = [d.message for d in await pull_all(bridge, 3)]
    assert len(many.headers) == 256
    assert large.headers == {"a": 1, "c": 2}
    assert nested.headers == {"a": 1}
    assert all(m.coordinates["headers_truncated"] is True for m in (many, large, nested))


@pytest.mark.parametrize("forged", [-1, 2**62, "7", None, True, [1]])
async def test_a_forged_count_of_attempts_is_ignored(
    producer: Producer, bridge: RabbitmqBridge, forged: object
) -> None:
    deaths = [{"count": 2**62, "queue": "elsewhere", "reason": "rejected"}] * 50
    await producer.send(headers={"x-delivery-count": forged, "x-death": deaths})
    message = await pull_one(bridge)
    assert message.attempt is None
    assert message.headers["x-death"] == deaths


async def test_the_same_message_in_two_queues_names_its_queue(producer: Producer) -> None:
    exchange, other = f"{producer.queue}.fanout", f"{producer.queue}.other"
    await producer.channel.exchange_declare(exchange, exchange_type="fanout")
    await producer.channel.queue_declare(other, durable=True)
    bridges = []
    for queue in (producer.queue, other):
        await producer.channel.queue_bind(queue, exchange)
        bridge = RabbitmqBridge("orders", producer.options(queue=queue))
        await bridge.open()
        bridges.append(bridge)
    await producer.send_raw(b"", spec.Basic.Properties(message_id="same"), exchange=exchange)
    messages = [await pull_one(bridge) for bridge in bridges]
    assert [m.id for m in messages] == ["same", "same"]
    assert [m.coordinates["queue"] for m in messages] == [producer.queue, other]
    for bridge in bridges:
        await bridge.close()
    await producer.channel.queue_delete(other)
    await producer.channel.exchange_delete(exchange)


def short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def table(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def nested(levels: int) -> bytes:
    content = b""
    for _ in range(levels):
        content = short(b"k") + b"F" + table(content)
    return table(content)


UNREADABLE: dict[str, tuple[bytes, dict[str, Any]]] = {
    "message id": (b"\x00\x80" + short(b"id-\xff"), {"id": "id-\\xff"}),
    "long message id": (b"\x00\x80" + short(b"\xff" * 255), {}),
    "content type": (b"\x80\x00" + short(b"\xff\xfe"), {"content_type": "\\xff\\xfe"}),
    "timestamp beyond the calendar": (b"\x00\x40" + b"\x7f" * 8, {"timestamp": None}),
    "header name": (b"\x20\x00" + table(short(b"\xff") + b"t\x01"), {}),
    "time in a header": (b"\x20\x00" + table(short(b"k") + b"T" + b"\x7f" * 8), {}),
    "3000 nested tables": (b"\x20\x00" + nested(3000), {}),
    "flags that stand for nothing": (b"\x00\x83" + short(b"m1"), {"id": "m1"}),
    "bad header, good rest": (
        b"\xa8\x80" + short(b"text/plain") + table(short(b"\xff") + b"t\x01") + b"\x07" + short(b"m1"),
        {"content_type": "text/plain", "priority": 7, "id": "m1"},
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_an_unreadable_message_is_handed_over_like_any_other(
    producer: Producer, bridge: RabbitmqBridge, name: str
) -> None:
    wire, expected = UNREADABLE[name]
    await producer.send_raw(b"the body", WireProperties(wire))
    await producer.send(b"the next", message_id="next")
    deliveries = await pull_all(bridge, 2)
    message = deliveries[0].message
    assert message.body == b"the body"
    assert {field: getattr(message, field) for field in expected} == expected
    if wire.startswith(b"\x20"):
        assert message.headers.keys() == {"hammerwork-unreadable"}
        assert message.coordinates["headers_truncated"] is True
    assert (deliveries[1].message.id, deliveries[1].message.body) == ("next", b"the next")
    await bridge.settle(stored(deliveries))
    await bridge.close()
    assert await producer.ready() == 0


async def test_an_unreadable_routing_key_is_made_readable(producer: Producer, bridge: RabbitmqBridge) -> None:
    await producer.channel.queue_bind(producer.queue, "amq.fanout")
    properties = spec.Basic.Properties(message_id="m1")
    await producer.send_raw(b"x", properties, to=WireKey("key"), exchange="amq.fanout")
    message = await pull_one(bridge)
    assert message.coordinates["routing_key"] == "\\xff\\xfe"
    assert (message.id, message.body) == ("m1", b"x")


async def test_long_unreadable_identities_stay_different(producer: Producer, bridge: RabbitmqBridge) -> None:
    for end in (b"1", b"2"):
        await producer.send_raw(b"", WireProperties(b"\x00\x80" + short(b"\xff" * 254 + end)))
    first, second = [d.message.id for d in await pull_all(bridge, 2)]
    assert first is not None
    assert first != second


@pytest.mark.parametrize(
    ("identity", "properties", "body", "expected"),
    [
        ("message_id", {"message_id": "m1"}, b"{}", "m1"),
        ("none", {"message_id": "m1"}, b"{}", None),
        ({"header": "key"}, {"headers": {"key": "k1"}}, b"{}", "k1"),
        ({"header": "key"}, {"headers": {"key": 7}}, b"{}", "7"),
        ({"header": "key"}, {"headers": {"key": True}}, b"{}", None),
        ({"header": "key"}, {"headers": {"key": ""}}, b"{}", None),
        ({"header": "key"}, {"headers": {"key": ["k"]}}, b"{}", None),
        ({"header": "key"}, {"headers": {}}, b"{}", None),
        ({"json": "/order/id"}, {}, b'{"order": {"id": "o1"}}', "o1"),
        ({"json": "/ids/1"}, {}, b'{"ids": [4, 5]}', "5"),
        ({"json": "/a~1b/~0"}, {}, b'{"a/b": {"~": "o1"}}', "o1"),
        ({"json": "/id"}, {}, b'{"id": 1.5}', None),
        ({"json": "/id"}, {}, b'{"id": null}', None),
        ({"json": "/id/x"}, {}, b'{"id": 5}', None),
        ({"json": "/id"}, {}, b"[]", None),
        ({"json": "/id"}, {}, b"{not json", None),
        ({"json": "/id"}, {}, b"\xff\xfe", None),
        ({"json": "/id"}, {}, b"[" * 100_000, None),
        ({"json": "/id"}, {}, b'{"id": ' + b"9" * 5000 + b"}", None),
    ],
)
async def test_identity_comes_from_where_the_options_say(
    producer: Producer, identity: object, properties: dict[str, Any], body: bytes, expected: str | None
) -> None:
    bridge = RabbitmqBridge("orders", producer.options(identity=identity))
    await bridge.open()
    await producer.send(body, **properties)
    message = await pull_one(bridge)
    assert message.id == expected
    assert message.body == body
    await bridge.close()
