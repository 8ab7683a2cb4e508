"""The MQTT bridge on a real broker: its session, what it acknowledges, and what comes again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from hammerwork.core.errors import Disconnected, Misconfigured
from hammerwork.core.message import Want
from hammerwork.core.postgres.database import Database
from hammerwork.plugins.mqtt import MqttBridge

from ..services.broker import PASSWORD, BrokerService
from ..services.proxy import FaultProxy
from .brokers import (
    AT_ONCE,
    SOON,
    bodies,
    disconnected,
    ingesting,
    payloads,
    pull_all,
    pull_one,
    reasons,
    stored,
    until,
)
from .mqtt_topic import MqttTopic


@pytest.fixture
async def bridge(mqtt_topic: MqttTopic) -> AsyncIterator[MqttBridge]:
    """An open bridge on the test's topics."""
    bridge = await other_bridge(mqtt_topic)
    yield bridge
    await bridge.close()


async def other_bridge(topic: MqttTopic, **settings: Any) -> MqttBridge:
    bridge = MqttBridge("orders", topic.options(**settings))
    await bridge.open()
    return bridge


# --- what a message is -----------------------------------------------------------------------------


async def test_a_message_says_all_that_was_published(mqtt_topic: MqttTopic, bridge: MqttBridge) -> None:
    await mqtt_topic.send(
        b'{"a":1}',
        to="plant/7",
        user=[("id", "m1"), ("tag", "a"), ("tag", "é")],
        ContentType="application/json",
        CorrelationData=b"c-1",
        ResponseTopic="answers",
    )
    message = await pull_one(bridge)
    assert message.body == b'{"a":1}'
    assert message.headers == {"id": "m1", "tag": ["a", "é"]}
    assert (message.id, message.correlation_id, message.content_type) == ("m1", "c-1", "application/json")
    assert message.coordinates == {
        "broker": "mqtt", "topic": f"{mqtt_topic.name}/plant/7", "qos": 1, "retained": False,
        "redelivered": False, "ResponseTopic": "answers",
    }  # fmt: skip


@pytest.mark.parametrize(
    "body", [b"", bytes(range(256)) * 16, b"x" * 3_000_000], ids=["empty", "bytes", "3 MB"]
)
async def test_a_body_of_any_bytes_arrives_exactly(
    mqtt_topic: MqttTopic, bridge: MqttBridge, body: bytes
) -> None:
    await mqtt_topic.send(body)
    assert (await pull_one(bridge)).body == body


@pytest.mark.parametrize(
    ("identity", "expected"),
    [({"property": "event"}, "e-7"), ({"json": "/id"}, "12"), ("none", None), ({"property": "absent"}, None)],
)
async def test_the_identity_and_the_key_are_what_was_chosen(
    mqtt_topic: MqttTopic, identity: Any, expected: Any
) -> None:
    bridge = await other_bridge(mqtt_topic, identity=identity, key="topic")
    await mqtt_topic.send(b'{"id":12}', user=[("event", "e-7")])
    message = await pull_one(bridge)
    assert (message.id, message.key) == (expected, f"{mqtt_topic.name}/new")
    level = (await bridge.guarantee()).level
    assert level == ("at-least-once" if identity == "none" else "exactly-once in effect")
    assert await bridge.pull(AT_ONCE) == []  # the check did not throw it out
    await bridge.close()


async def test_only_the_topics_that_were_named_are_read(mqtt_topic: MqttTopic) -> None:
    bridge = await other_bridge(mqtt_topic, topics=[f"{mqtt_topic.name}/+/alarm", f"{mqtt_topic.name}/exact"])
    for place in ("a/alarm", "a/other", "exact", "exact/below", "a/b/alarm"):
        await mqtt_topic.send(place.encode(), to=place)
    assert bodies(await pull_all(bridge, 2)) == [b"a/alarm", b"exact"]
    assert await bridge.pull(SOON) == []
    await bridge.close()


@pytest.mark.parametrize(("retained", "expected"), [("new", [1, 0]), ("always", [1, 1]), ("never", [0, 0])])
async def test_retained_messages_are_taken_as_was_told(
    mqtt_topic: MqttTopic, retained: str, expected: list[int]
) -> None:
    await mqtt_topic.send(b"kept", retain=True)
    found = []
    bridge = MqttBridge("orders", mqtt_topic.options(retained=retained))
    for _ in range(2):
        await bridge.open()
        deliveries = await bridge.pull(SOON)
        assert all(d.message.coordinates["retained"] for d in deliveries)
        await bridge.settle(stored(deliveries))
        await bridge.close()
        found.append(len(deliveries))
    await mqtt_topic.send(b"", retain=True)
    assert found == expected


# --- how much, and when ----------------------------------------------------------------------------


async def test_a_pull_brings_what_was_asked_for_in_order(mqtt_topic: MqttTopic, bridge: MqttBridge) -> None:
    for n in range(60):
        await mqtt_topic.send(b"%d" % n)
    first = await pull_all(bridge, 40, Want(count=40))
    assert bodies(first) == [b"%d" % n for n in range(40)]
    assert bodies(await pull_all(bridge, 20, SOON)) == [b"%d" % n for n in range(40, 60)]


async def test_a_pull_stops_at_the_size(mqtt_topic: MqttTopic, bridge: MqttBridge) -> None:
    for _ in range(6):
        await mqtt_topic.send(b"x" * 10_000)
    await asyncio.wait_for(bridge.pull(Want(count=1)), 5)
    assert len(await bridge.pull(Want(size=25_000, linger=timedelta(seconds=1)))) <= 2
    assert len(await bridge.pull(Want(size=1))) == 1


async def test_no_more_is_sent_ahead_than_was_allowed(mqtt_topic: MqttTopic) -> None:
    bridge = await other_bridge(mqtt_topic, receive_maximum=5)
    for n in range(12):
        await mqtt_topic.send(b"%d" % n)
    deliveries = await pull_all(bridge, 5)
    await bridge.rest()
    assert await bridge.pull(SOON) == []
    await bridge.settle(stored(deliveries[:3]))
    gathered = await bridge.pull(Want(count=3, linger=timedelta(seconds=1)))
    assert bodies(gathered) == [b"5", b"6", b"7"]
    await bridge.close()


async def test_an_empty_topic_answers_in_time(bridge: MqttBridge) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await bridge.pull(AT_ONCE) == []
    assert loop.time() - began < 0.2
    assert await bridge.pull(SOON) == []
    assert 0.25 < loop.time() - began < 1.5
    assert await bridge.lag() is None


# --- what becomes of it ----------------------------------------------------------------------------


async def test_what_was_not_settled_comes_again_and_what_was_does_not(
    mqtt_topic: MqttTopic, bridge: MqttBridge
) -> None:
    for n in range(4):
        await mqtt_topic.send(b"%d" % n)
    deliveries = await pull_all(bridge, 4)
    await bridge.settle(stored(deliveries[:2]))
    await bridge.close()

    await bridge.open()
    again = await pull_all(bridge, 2)
    assert bodies(again) == [b"2", b"3"]
    assert all(d.message.coordinates["redelivered"] for d in again)
    await bridge.settle(stored(deliveries))  # too late: of a connection that is no more
    await bridge.settle(stored(again))
    await bridge.close()
    await bridge.open()
    assert await bridge.pull(SOON) == []


async def test_what_was_released_is_taken_again_first(mqtt_topic: MqttTopic, bridge: MqttBridge) -> None:
    for n in range(4):
        await mqtt_topic.send(b"%d" % n)
    deliveries = await pull_all(bridge, 3, Want(count=3))
    await bridge.settle(stored(deliveries[:1]))
    await bridge.release(deliveries[1:])
    assert bodies(await pull_all(bridge, 3)) == [b"1", b"2", b"3"]


async def test_what_is_published_with_qos_2_survives_a_crash_before_it_is_stored(
    mqtt_topic: MqttTopic, bridge: MqttBridge
) -> None:
    await mqtt_topic.send(b"precious", qos=2)
    [delivery] = await pull_all(bridge, 1)
    assert delivery.message.coordinates["qos"] == 1
    await bridge.close()
    await bridge.open()
    assert (await pull_one(bridge)).body == b"precious"


async def test_members_of_a_share_have_each_message_once(mqtt_topic: MqttTopic) -> None:
    bridges = [
        await other_bridge(mqtt_topic, client_id=f"{mqtt_topic.name}-{n}", share="crew") for n in range(2)
    ]
    for n in range(10):
        await mqtt_topic.send(b"%d" % n)
    taken = [await bridge.pull(SOON) for bridge in bridges]
    assert all(taken)
    assert sorted(bodies([*taken[0], *taken[1]])) == sorted(b"%d" % n for n in range(10))
    for bridge, deliveries in zip(bridges, taken, strict=True):
        await bridge.settle(stored(deliveries))
        await bridge.close()


async def test_closing_twice_is_no_error(bridge: MqttBridge) -> None:
    await bridge.close()
    await bridge.close()
    for call in (bridge.pull(SOON), bridge.rest(), bridge.lag()):
        with pytest.raises(Disconnected, match="not open"):
            await call


# --- what may be wrong -----------------------------------------------------------------------------


async def test_a_second_client_of_the_same_id_throws_the_first_out(
    mqtt_topic: MqttTopic, bridge: MqttBridge
) -> None:
    other = await other_bridge(mqtt_topic)
    with pytest.raises((Disconnected, Misconfigured)):  # brokers may say that the session was taken over
        await bridge.pull(Want(wait=timedelta(seconds=5)))
    await other.close()


async def test_a_wrong_password_is_a_misconfiguration_that_does_not_tell_it(mqtt_topic: MqttTopic) -> None:
    url = mqtt_topic.url.replace("://", "://tester:wr0ng@")
    with pytest.raises(Misconfigured) as refused:
        await MqttBridge("orders", mqtt_topic.options(url=url)).open()
    assert "password of the url" in refused.value.hint
    assert "wr0ng" not in str(refused.value) + refused.value.hint
    right = await other_bridge(mqtt_topic, url=url.replace("wr0ng", PASSWORD))
    await right.close()


@pytest.mark.parametrize("topic", ["", "a/#/b", "a+/b", "a/b#"])
def test_a_filter_that_is_none_is_refused(mqtt_topic: MqttTopic, topic: str) -> None:
    with pytest.raises(ValidationError, match="topic filter"):
        mqtt_topic.options(topics=[topic])


async def test_nobody_listening_is_a_disconnect(mqtt_topic: MqttTopic) -> None:
    async with FaultProxy("127.0.0.1", 1) as proxy:
        url = f"mqtt://127.0.0.1:{proxy.port}"
    with pytest.raises(Disconnected):
        await MqttBridge("orders", mqtt_topic.options(url=url)).open()


@pytest.mark.chaos
async def test_a_broker_that_is_silent_is_a_disconnect(
    mqtt_service: BrokerService, mqtt_topic: MqttTopic
) -> None:
    async with FaultProxy(*mqtt_service.address) as proxy:
        url = f"mqtt://127.0.0.1:{proxy.port}"
        second = timedelta(seconds=1)
        bridge = await other_bridge(mqtt_topic, url=url, heartbeat=second, connect_timeout=second)
        assert await bridge.pull(SOON) == []
        proxy.blackhole()
        began = asyncio.get_running_loop().time()
        await disconnected(bridge)
        assert asyncio.get_running_loop().time() - began < 6
        with pytest.raises(Disconnected, match="in time"):
            await bridge.open()
        proxy.cut()
        await bridge.close()


# --- all the way -----------------------------------------------------------------------------------


async def test_a_connection_cut_in_a_message_loses_nothing_and_makes_nothing_twice(
    mqtt_service: BrokerService, mqtt_topic: MqttTopic, database: Database
) -> None:
    async with FaultProxy(*mqtt_service.address) as proxy:
        options = mqtt_topic.options(url=f"mqtt://127.0.0.1:{proxy.port}")
        async with ingesting(MqttBridge("orders", options), database) as intake:

            async def arrived() -> bool:
                await mqtt_topic.send(b'{"n": 0}', user=[("id", "0")])
                return intake.counts.stored == 1

            await until(arrived)
            cut = proxy.cut_after(b"cut-here", "to_client")
            await mqtt_topic.send(b'{"id": "cut-here"}', user=[("id", "1")])
            await asyncio.wait_for(cut.wait(), 10)
            await mqtt_topic.send(b'{"id": "after"}', user=[("id", "2")])

            async def all_there() -> bool:
                return len(await payloads(database)) == 3 and intake.counts.reconnects == 1

            await until(all_there)


async def test_poison_becomes_a_dead_letter_and_the_rest_goes_on(
    mqtt_topic: MqttTopic, database: Database
) -> None:
    bridge = await other_bridge(mqtt_topic)  # the session begins
    await bridge.close()
    for body in (b"not json", b"", b'{"n": 1}'):
        await mqtt_topic.send(body)
    async with ingesting(bridge, database) as intake:

        async def settled() -> bool:
            return len(await payloads(database)) == 1 and intake.counts.dead_lettered.total() == 2

        await until(settled)
    assert sorted(await reasons(database)) == ["empty_body", "not_json"]
    await bridge.open()
    assert await bridge.pull(SOON) == []
    await bridge.close()


@pytest.mark.chaos
async def test_a_broker_that_restarts_loses_nothing(
    mqtt_service: BrokerService, mqtt_topic: MqttTopic, database: Database
) -> None:
    if not mqtt_service.ours:
        pytest.skip("the broker is not ours to kill")
    bridge = await other_bridge(mqtt_topic)
    await bridge.close()
    for n in range(40):
        await mqtt_topic.send(b'{"n": %d}' % n, user=[("id", str(n))])
    async with ingesting(bridge, database, count=7) as intake:

        async def some() -> bool:
            return intake.counts.stored > 10

        await until(some)
        await asyncio.to_thread(mqtt_service.restart, immediate=False)
        for n in range(40, 50):
            await mqtt_topic.send(b'{"n": %d}' % n, user=[("id", str(n))])

        async def all_there() -> bool:
            return len(await payloads(database)) >= 50

        await until(all_there)
    assert sorted(payload["n"] for payload in await payloads(database)) == list(range(50))
