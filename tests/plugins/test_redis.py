"""The Redis bridge and sink on a real server: what is read, acknowledged, handed back and taken over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hammerwork.core.errors import Disconnected, Misconfigured
from hammerwork.core.message import Want
from hammerwork.core.postgres.database import Database
from hammerwork.plugins.redis import RedisBridge

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
from .redis_stream import RedisStream


@pytest.fixture
async def bridge(redis_stream: RedisStream) -> AsyncIterator[RedisBridge]:
    """An open bridge on the test's stream."""
    bridge = RedisBridge("orders", redis_stream.options())
    await bridge.open()
    yield bridge
    await bridge.close()


async def other_bridge(stream: RedisStream, **settings: Any) -> RedisBridge:
    bridge = RedisBridge("orders", stream.options(**settings))
    await bridge.open()
    return bridge


# --- what a message is -----------------------------------------------------------------------------


async def test_a_message_says_all_that_its_entry_does(redis_stream: RedisStream, bridge: RedisBridge) -> None:
    entry = await redis_stream.add("body", b'{"a":1}', "tenant", "acme", "raw", b"\xff\x00")
    message = await pull_one(bridge)
    assert message.body == b'{"a":1}'
    assert message.headers == {"tenant": "acme", "raw": {"base64": "/wA="}}
    assert message.id == f"{redis_stream.name}:{entry}"
    assert message.attempt == 1
    assert message.timestamp is not None
    assert abs(datetime.now(UTC) - message.timestamp) < timedelta(minutes=1)
    assert message.coordinates == {
        "broker": "redis", "stream": redis_stream.name, "group": "hammerwork", "entry": entry,
    }  # fmt: skip


async def test_without_a_body_field_the_entry_is_the_body(redis_stream: RedisStream) -> None:
    bridge = await other_bridge(redis_stream, body_field=None, key_field="customer")
    await redis_stream.add("customer", "é1", "amount", "7", "raw", b"\xff")
    message = await pull_one(bridge)
    assert json.loads(message.body) == {"customer": "é1", "amount": "7", "raw": {"base64": "/w=="}}
    assert message.key == "é1"
    assert message.headers == {}
    await bridge.close()


@pytest.mark.parametrize(
    "body",
    [b"", bytes(range(256)) * 16, b"\r\n$-1\r\n", b"x" * 3_000_000],
    ids=["empty", "bytes", "resp", "3 MB"],
)
async def test_a_body_of_any_bytes_arrives_exactly(
    redis_stream: RedisStream, bridge: RedisBridge, body: bytes
) -> None:
    await redis_stream.send(body)
    assert (await pull_one(bridge)).body == body


@pytest.mark.parametrize(
    ("identity", "expected"),
    [({"field": "event"}, "e-7"), ({"json": "/order/id"}, "12"), ("none", None), ({"field": "absent"}, None)],
)
async def test_the_identity_is_what_was_chosen(
    redis_stream: RedisStream, identity: Any, expected: Any
) -> None:
    bridge = await other_bridge(redis_stream, identity=identity)
    await redis_stream.add("body", b'{"order":{"id":12}}', "event", "e-7")
    assert (await pull_one(bridge)).id == expected
    level = (await bridge.guarantee()).level
    assert level == ("at-least-once" if identity == "none" else "exactly-once in effect")
    await bridge.close()


# --- how much, and when ----------------------------------------------------------------------------


async def test_a_pull_brings_what_was_asked_for_in_order(
    redis_stream: RedisStream, bridge: RedisBridge
) -> None:
    for n in range(250):
        await redis_stream.send(b"%d" % n)
    first = await bridge.pull(Want(count=230))
    assert bodies(first) == [b"%d" % n for n in range(230)]
    assert bodies(await bridge.pull(AT_ONCE)) == [b"%d" % n for n in range(230, 250)]


async def test_a_pull_stops_at_the_size(redis_stream: RedisStream, bridge: RedisBridge) -> None:
    for n in range(250):
        await redis_stream.send(b"%03d" % n * 300)
    assert len(await bridge.pull(Want(size=45_000))) == 50
    assert await bridge.lag() == 200
    await bridge.rest()
    assert len(await bridge.pull(Want(size=45_000))) == 50
    assert sorted(bodies(await pull_all(bridge, 150))) == [b"%03d" % n * 300 for n in range(100, 250)]


async def test_an_empty_stream_answers_in_time(bridge: RedisBridge) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await bridge.pull(AT_ONCE) == []
    assert loop.time() - began < 0.2
    assert await bridge.pull(SOON) == []
    assert 0.25 < loop.time() - began < 1.5


async def test_a_waiting_pull_gathers_what_follows_the_first(
    redis_stream: RedisStream, bridge: RedisBridge
) -> None:
    pulling = asyncio.create_task(
        bridge.pull(Want(wait=timedelta(seconds=10), linger=timedelta(milliseconds=300))), name="pull"
    )
    await redis_stream.send(b"1")
    await redis_stream.send(b"2")
    assert bodies(await asyncio.wait_for(pulling, 5)) == [b"1", b"2"]


# --- what becomes of it ----------------------------------------------------------------------------


async def test_settled_entries_are_owed_no_more(redis_stream: RedisStream, bridge: RedisBridge) -> None:
    for _ in range(3):
        await redis_stream.send()
    deliveries = await pull_all(bridge, 3)
    assert await redis_stream.pending() == 3
    await bridge.settle(stored(deliveries[:1]))
    await bridge.settle(stored(deliveries[1:]))
    await bridge.settle(stored(deliveries))
    assert await redis_stream.pending() == 0
    assert await redis_stream.ask("XLEN", redis_stream.name) == 3


async def test_settled_entries_may_be_deleted(redis_stream: RedisStream) -> None:
    bridge = await other_bridge(redis_stream, after="delete")
    for _ in range(3):
        await redis_stream.send()
    await bridge.settle(stored((await pull_all(bridge, 3))[:2]))
    assert await redis_stream.ask("XLEN", redis_stream.name) == 1
    await bridge.close()


async def test_released_entries_go_to_whoever_asks_next_and_are_not_counted(
    redis_stream: RedisStream, bridge: RedisBridge
) -> None:
    for n in range(4):
        await redis_stream.send(b"%d" % n)
    deliveries = await pull_all(bridge, 4)
    await bridge.release(deliveries[1:])
    other = await other_bridge(redis_stream)
    taken = await pull_all(other, 3)
    assert bodies(taken) == [b"1", b"2", b"3"]
    assert [d.message.attempt for d in taken] == [1, 1, 1]
    await other.settle(stored(taken))
    await bridge.settle(stored(deliveries[:1]))
    assert await redis_stream.pending() == 0
    await other.close()


async def test_a_bridge_may_have_again_what_it_released(
    redis_stream: RedisStream, bridge: RedisBridge
) -> None:
    await redis_stream.send(b"1")
    await bridge.release(await pull_all(bridge, 1))
    assert (await pull_one(bridge)).attempt == 1


async def test_closing_gives_back_and_takes_its_name_out_of_the_group(
    redis_stream: RedisStream, bridge: RedisBridge
) -> None:
    await redis_stream.send(b"1")
    await pull_all(bridge, 1)
    await bridge.close()
    assert await redis_stream.consumers() == ["hammerwork.released"]
    await bridge.close()
    with pytest.raises(Disconnected, match="not open"):
        await bridge.pull(SOON)
    await bridge.open()
    assert (await pull_one(bridge)).body == b"1"


async def test_what_a_dead_consumer_had_is_taken_over_after_the_lease_and_counted(
    redis_stream: RedisStream,
) -> None:
    await redis_stream.send(b"1")
    await redis_stream.ask("XGROUP", "CREATE", redis_stream.name, "hammerwork", "0")
    read = ("XREADGROUP", "GROUP", "hammerwork", "dead", "STREAMS", redis_stream.name, ">")
    await redis_stream.ask(*read)
    bridge = await other_bridge(redis_stream, lease=timedelta(seconds=1))
    assert await bridge.pull(AT_ONCE) == []  # it may still be at work
    assert await bridge.lag() == 1
    message = await pull_one(bridge)
    assert (message.body, message.attempt) == (b"1", 2)
    await bridge.close()


async def test_what_is_in_hand_longer_than_the_lease_is_not_delivered_twice_to_the_same(
    redis_stream: RedisStream,
) -> None:
    bridge = await other_bridge(redis_stream, lease=timedelta(seconds=1))
    await redis_stream.send(b"1")
    await pull_all(bridge, 1)
    assert await bridge.pull(Want(wait=timedelta(seconds=1.2))) == []
    assert await bridge.pull(AT_ONCE) == []
    await bridge.close()


async def test_what_was_trimmed_before_it_was_read_is_not_owed_for_ever(
    redis_stream: RedisStream, bridge: RedisBridge
) -> None:
    await redis_stream.send(b"1")
    await redis_stream.send(b"2")
    await bridge.release(await pull_all(bridge, 2))
    await redis_stream.ask("XTRIM", redis_stream.name, "MAXLEN", 1)
    assert bodies(await bridge.pull(SOON)) == [b"2"]
    assert await redis_stream.pending() == 1


async def test_lag_counts_what_waits_and_rest_keeps_the_connection(
    redis_stream: RedisStream, bridge: RedisBridge
) -> None:
    for _ in range(5):
        await redis_stream.send()
    assert await bridge.lag() == 5
    await pull_all(bridge, 2, Want(count=2))
    assert await bridge.lag() == 3
    pulling = asyncio.create_task(bridge.pull(Want(wait=timedelta(seconds=2))), name="pull")
    assert await asyncio.wait_for(bridge.lag(), 1) is not None
    await pulling
    await bridge.rest()


# --- where a group begins --------------------------------------------------------------------------


async def test_a_group_begins_where_it_was_told_to(redis_stream: RedisStream) -> None:
    first = await redis_stream.send(b"1")
    await redis_stream.send(b"2")
    for group, start, expected in [("a", "beginning", [b"1", b"2"]), ("b", first, [b"2"]), ("c", "end", [])]:
        bridge = await other_bridge(redis_stream, group=group, start=start)
        assert bodies(await bridge.pull(SOON)) == expected
        await bridge.close()


@pytest.mark.parametrize("read", [True, False])
async def test_a_deleted_stream_is_a_disconnect_and_opening_again_misses_nothing(
    redis_stream: RedisStream, read: bool
) -> None:
    await redis_stream.send(b"before")
    bridge = await other_bridge(redis_stream, start="end")
    if read:
        await redis_stream.send(b"1")
        await bridge.settle(stored(await pull_all(bridge, 1)))
    await redis_stream.ask("DEL", redis_stream.name)
    await redis_stream.send(b"2")
    assert "NOGROUP" in str(await disconnected(bridge))
    await bridge.open()
    assert (await pull_one(bridge)).body == b"2"
    await bridge.close()


async def test_a_group_that_must_exist_is_not_made(redis_stream: RedisStream) -> None:
    bridge = RedisBridge("orders", redis_stream.options(declare="verify"))
    with pytest.raises(Misconfigured, match="has no group 'hammerwork'") as refused:
        await bridge.open()
    assert "declare = 'create'" in refused.value.hint
    with pytest.raises(Misconfigured):
        await bridge.guarantee()


# --- what may be wrong -----------------------------------------------------------------------------


async def test_a_wrong_password_is_a_misconfiguration_that_does_not_tell_it(
    redis_stream: RedisStream,
) -> None:
    url = redis_stream.url.replace("://", "://tester:wr0ng@")
    with pytest.raises(Misconfigured) as refused:
        await RedisBridge("orders", redis_stream.options(url=url)).open()
    assert "password of the url" in refused.value.hint
    assert "wr0ng" not in str(refused.value) + refused.value.hint
    right = RedisBridge("orders", redis_stream.options(url=url.replace("wr0ng", PASSWORD)))
    await right.open()
    await right.close()


async def test_a_key_that_is_no_stream_is_a_misconfiguration(redis_stream: RedisStream) -> None:
    await redis_stream.ask("SET", redis_stream.name, "text")
    with pytest.raises(Misconfigured, match="WRONGTYPE"):
        await RedisBridge("orders", redis_stream.options()).open()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "http://h:1"}, "redis:// or rediss://"),
        ({"url": "redis://h:notaport"}, "cannot be read"),
        ({"url": "redis://h/zero"}, "number of a database"),
        ({"url": "redis://h/0?password=x"}, "must not carry a query"),
        ({"url": "redis://h", "tls": {"ca_file": "ca.pem"}}, "tls is set but the url is redis://"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(redis_stream: RedisStream, settings: Any, words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        RedisBridge("orders", redis_stream.options(**settings))


async def test_nobody_listening_is_a_disconnect(redis_stream: RedisStream) -> None:
    async with FaultProxy("127.0.0.1", 1) as proxy:
        port = proxy.port
    with pytest.raises(Disconnected):
        await RedisBridge("orders", redis_stream.options(url=f"redis://127.0.0.1:{port}")).open()


# --- all the way -----------------------------------------------------------------------------------


async def test_a_connection_cut_around_an_answer_loses_nothing_and_makes_nothing_twice(
    redis_service: BrokerService, redis_stream: RedisStream, database: Database
) -> None:
    """The answer to the read is cut, then the acknowledgement: both times the server has acted already."""
    async with FaultProxy(*redis_service.address) as proxy:
        options = redis_stream.options(url=f"redis://127.0.0.1:{proxy.port}")
        async with ingesting(RedisBridge("orders", options), database):
            for number, words in enumerate((b"cut-here", b"XACK"), 1):
                cut = proxy.cut_after(words, "to_client" if words == b"cut-here" else "to_server")
                await redis_stream.send(b'{"id": "cut-here"}')
                await asyncio.wait_for(cut.wait(), 10)

                async def arrived(number: int = number) -> bool:
                    return len(await payloads(database)) == number and await redis_stream.pending() == 0

                await until(arrived)


async def test_poison_becomes_a_dead_letter_and_the_rest_goes_on(
    redis_stream: RedisStream, database: Database
) -> None:
    await redis_stream.send(b"not json")
    await redis_stream.add("other", "no body at all")
    await redis_stream.send(b'{"n": 1}')
    async with ingesting(RedisBridge("orders", redis_stream.options()), database):

        async def settled() -> bool:
            return len(await payloads(database)) == 1 and await redis_stream.pending() == 0

        await until(settled)
    assert sorted(await reasons(database)) == ["empty_body", "not_json"]


@pytest.mark.chaos
async def test_a_killed_server_loses_nothing(
    redis_service: BrokerService, redis_stream: RedisStream, database: Database
) -> None:
    if not redis_service.ours:
        pytest.skip("the server is not ours to kill")
    for n in range(50):
        await redis_stream.send(b'{"n": %d}' % n)
    bridge = RedisBridge("orders", redis_stream.options())
    async with ingesting(bridge, database, count=7) as intake:

        async def some() -> bool:
            return intake.counts.stored > 10

        await until(some)
        await asyncio.to_thread(redis_service.restart)
        for n in range(50, 60):
            await redis_stream.send(b'{"n": %d}' % n)

        async def all_there() -> bool:
            return len(await payloads(database)) >= 60 and await redis_stream.pending() == 0

        await until(all_there)
    assert sorted(
        json.loads(p)["n"] if isinstance(p, str) else p["n"] for p in await payloads(database)
    ) == list(range(60))
