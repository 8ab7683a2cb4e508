"""The NATS bridge and sink on a real server: what is pulled, acknowledged, handed back and published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.js.api import ConsumerConfig

from hammerwork.core.errors import Disconnected, Misconfigured
from hammerwork.core.message import Want
from hammerwork.core.postgres.database import Database
from hammerwork.plugins.nats import NatsBridge

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
from .nats_stream import NatsStream


@pytest.fixture
async def bridge(nats_stream: NatsStream) -> AsyncIterator[NatsBridge]:
    """An open bridge on the test's stream."""
    bridge = NatsBridge("orders", nats_stream.options())
    await bridge.open()
    yield bridge
    await bridge.close()


async def other_bridge(stream: NatsStream, **settings: Any) -> NatsBridge:
    bridge = NatsBridge("orders", stream.options(**settings))
    await bridge.open()
    return bridge


async def owed_is(stream: NatsStream, count: int) -> None:
    async def reached() -> bool:
        return await stream.owed() == count

    await until(reached)


# --- what a message is -----------------------------------------------------------------------------


async def test_a_message_says_all_that_was_published(nats_stream: NatsStream, bridge: NatsBridge) -> None:
    headers = {"Nats-Msg-Id": "m1", "tenant": "acmé", "Content-Type": "application/json"}
    sequence = await nats_stream.send(b'{"a":1}', headers)
    message = await pull_one(bridge)
    assert message.body == b'{"a":1}'
    assert message.headers == headers
    assert (message.id, message.attempt, message.content_type) == ("m1", 1, "application/json")
    assert message.timestamp is not None
    assert abs(datetime.now(UTC) - message.timestamp) < timedelta(minutes=1)
    assert message.coordinates == {
        "broker": "nats", "stream": nats_stream.name, "consumer": "hammerwork",
        "subject": f"{nats_stream.name}.new", "sequence": sequence,
    }  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [b"", bytes(range(256)) * 16, b"+OK\r\nMSG x 1 1\r\n", b"x" * 900_000],
    ids=["empty", "bytes", "protocol", "900 kB"],
)
async def test_a_body_of_any_bytes_arrives_exactly(
    nats_stream: NatsStream, bridge: NatsBridge, body: bytes
) -> None:
    await nats_stream.send(body)
    assert (await pull_one(bridge)).body == body


@pytest.mark.parametrize(
    ("identity", "expected"),
    [({"header": "event"}, "e-7"), ({"json": "/id"}, "12"), ("none", None), ({"header": "absent"}, None)],
)
async def test_the_identity_and_the_key_are_what_was_chosen(
    nats_stream: NatsStream, identity: Any, expected: Any
) -> None:
    bridge = await other_bridge(nats_stream, identity=identity, key={"header": "EVENT"})
    await nats_stream.send(b'{"id":12}', {"event": "e-7"})
    message = await pull_one(bridge)
    assert (message.id, message.key) == (expected, "e-7")
    level = (await bridge.guarantee()).level
    assert level == ("at-least-once" if identity == "none" else "exactly-once in effect")
    await bridge.close()


async def test_a_message_without_an_id_is_known_by_its_place_and_a_new_stream_has_new_places(
    nats_stream: NatsStream,
) -> None:
    found = []
    for _ in range(2):
        bridge = await other_bridge(nats_stream, key="subject")
        await nats_stream.send(b"{}")
        deliveries = await pull_all(bridge, 1)
        await bridge.release(deliveries)
        again = await pull_one(bridge)
        assert again.id == deliveries[0].message.id
        assert (again.attempt, again.key) == (2, f"{nats_stream.name}.new")
        found.append(again.id)
        await bridge.close()
        await nats_stream.js.delete_stream(nats_stream.name)
        await nats_stream.js.add_stream(name=nats_stream.name, subjects=[f"{nats_stream.name}.>"])
    assert found[0] != found[1]


# --- how much, and when ----------------------------------------------------------------------------


async def test_a_pull_brings_what_was_asked_for_in_order(nats_stream: NatsStream, bridge: NatsBridge) -> None:
    for n in range(250):
        await nats_stream.client.publish(f"{nats_stream.name}.new", b"%d" % n)
    await nats_stream.client.flush()
    first = await pull_all(bridge, 230, Want(count=230))
    assert bodies(first) == [b"%d" % n for n in range(230)]
    rest = await pull_all(bridge, 20, AT_ONCE)
    assert bodies(rest) == [b"%d" % n for n in range(230, 250)]


async def test_a_pull_stops_at_the_size_and_takes_a_message_larger_than_it(
    nats_stream: NatsStream, bridge: NatsBridge
) -> None:
    for _ in range(20):
        await nats_stream.send(b"x" * 10_000)
    assert len(await bridge.pull(Want(size=50_000))) <= 5
    taken = await pull_all(bridge, 1, Want(count=1, size=1000))
    assert len(taken[0].message.body) == 10_000


async def test_an_empty_stream_answers_in_time(bridge: NatsBridge) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(20):
        assert await bridge.pull(AT_ONCE) == []
    assert loop.time() - began < 1.0
    began = loop.time()
    assert await bridge.pull(SOON) == []
    assert 0.25 < loop.time() - began < 1.5


async def test_a_pull_at_once_after_a_partial_answer_still_brings_what_is_there(
    nats_stream: NatsStream, bridge: NatsBridge
) -> None:
    loop = asyncio.get_running_loop()
    for n in range(5):
        await nats_stream.send(b"%d" % n)
        began = loop.time()
        assert bodies(await pull_all(bridge, 1, AT_ONCE)) == [b"%d" % n]
        assert loop.time() - began < 0.5


async def test_a_waiting_pull_gathers_what_follows_the_first(
    nats_stream: NatsStream, bridge: NatsBridge
) -> None:
    pulling = asyncio.create_task(
        bridge.pull(Want(wait=timedelta(seconds=10), linger=timedelta(milliseconds=300))), name="pull"
    )
    await nats_stream.send(b"1")
    await nats_stream.send(b"2")
    assert bodies(await asyncio.wait_for(pulling, 5)) == [b"1", b"2"]


# --- what becomes of it ----------------------------------------------------------------------------


@pytest.mark.parametrize("confirm", [False, True])
async def test_settled_messages_are_owed_no_more(nats_stream: NatsStream, confirm: bool) -> None:
    bridge = await other_bridge(nats_stream, confirm=confirm)
    for _ in range(30):
        await nats_stream.send()
    deliveries = await pull_all(bridge, 30)
    await bridge.settle(stored(deliveries[:10]))
    await bridge.settle(stored(deliveries))
    await owed_is(nats_stream, 0)
    await bridge.close()


async def test_released_messages_go_to_whoever_asks_next(nats_stream: NatsStream, bridge: NatsBridge) -> None:
    for n in range(4):
        await nats_stream.send(b"%d" % n)
    deliveries = await pull_all(bridge, 4)
    await bridge.release(deliveries[1:])
    other = await other_bridge(nats_stream)
    taken = await pull_all(other, 3)
    assert sorted(bodies(taken)) == [b"1", b"2", b"3"]
    await other.settle(stored(taken))
    await bridge.settle(stored(deliveries[:1]))
    await owed_is(nats_stream, 0)
    await other.close()


async def test_what_was_released_stays_away_for_as_long_as_was_asked(nats_stream: NatsStream) -> None:
    bridge = await other_bridge(nats_stream, release_delay=timedelta(milliseconds=600))
    await nats_stream.send()
    await bridge.release(await pull_all(bridge, 1))
    assert await bridge.pull(SOON) == []
    assert (await pull_one(bridge)).attempt == 2
    await bridge.close()


async def test_closing_gives_back_and_closing_twice_is_no_error(
    nats_stream: NatsStream, bridge: NatsBridge
) -> None:
    await nats_stream.send(b"1")
    await pull_all(bridge, 1)
    await bridge.close()
    await bridge.close()
    with pytest.raises(Disconnected, match="not open"):
        await bridge.pull(SOON)
    await bridge.open()
    assert (await pull_one(bridge)).body == b"1"


async def test_what_is_in_hand_for_longer_than_the_lease_is_kept(nats_stream: NatsStream) -> None:
    bridge = await other_bridge(nats_stream, lease=timedelta(seconds=1))
    other = await other_bridge(nats_stream)
    await nats_stream.send()
    deliveries = await pull_all(bridge, 1)
    assert await other.pull(Want(wait=timedelta(seconds=2.5))) == []
    await bridge.settle(stored(deliveries))
    await owed_is(nats_stream, 0)
    await bridge.close()
    await other.close()


async def test_what_a_dead_process_had_comes_again_after_the_lease(nats_stream: NatsStream) -> None:
    dead = await other_bridge(nats_stream, lease=timedelta(seconds=1))
    await nats_stream.send()
    await pull_all(dead, 1)
    keeping, link = dead._keeping, dead._link
    assert keeping is not None
    assert link is not None
    keeping.cancel()
    await link.close()
    bridge = await other_bridge(nats_stream)
    assert (await pull_one(bridge)).attempt == 2
    await bridge.close()
    await dead.close()


async def test_rest_hands_back_what_was_received_ahead_and_lag_counts_what_waits(
    nats_stream: NatsStream, bridge: NatsBridge
) -> None:
    for _ in range(5):
        await nats_stream.send()
    assert await bridge.lag() == 5
    taken = await pull_all(bridge, 2, Want(count=2))
    assert await bridge.lag() == 3
    pulling = asyncio.create_task(bridge.pull(Want(count=10, wait=timedelta(seconds=2))), name="pull")
    assert await asyncio.wait_for(bridge.lag(), 1) is not None
    ahead = await pulling
    await bridge.rest()
    await bridge.settle(stored([*taken, *ahead]))
    await owed_is(nats_stream, 0)


# --- where a consumer begins, and what it is -------------------------------------------------------


async def test_a_consumer_begins_where_it_was_told_to(nats_stream: NatsStream) -> None:
    await nats_stream.send(b"1")
    await nats_stream.send(b"2")
    for start, expected in [("beginning", [b"1", b"2"]), ("2", [b"2"]), ("end", [])]:
        bridge = await other_bridge(nats_stream, consumer=f"from_{start}", start=start)
        assert bodies(await bridge.pull(SOON)) == expected
        await bridge.close()


async def test_a_consumer_that_must_exist_is_not_made(nats_stream: NatsStream) -> None:
    bridge = NatsBridge("orders", nats_stream.options(declare="verify"))
    for what in (bridge.open, bridge.guarantee):
        with pytest.raises(Misconfigured, match="has no consumer 'hammerwork'"):
            await what()


async def test_a_stream_that_is_missing_is_a_misconfiguration(nats_stream: NatsStream) -> None:
    with pytest.raises(Misconfigured, match="stream not found"):
        await NatsBridge("orders", nats_stream.options(stream="nowhere")).open()


@pytest.mark.parametrize(
    ("config", "settings", "words"),
    [
        (ConsumerConfig(deliver_subject="push"), {}, "does not pull"),
        (ConsumerConfig(filter_subject="*.old"), {"subject": "*.new"}, "has the subject"),
    ],
)
async def test_a_consumer_of_another_kind_is_refused(
    nats_stream: NatsStream, config: ConsumerConfig, settings: Any, words: str
) -> None:
    config = config.evolve(durable_name="hammerwork")
    if config.filter_subject:
        config, settings = config.evolve(filter_subject=f"{nats_stream.name}.old"), {"subject": "x.new"}
    await nats_stream.js.add_consumer(nats_stream.name, config)
    with pytest.raises(Misconfigured, match=words):
        await NatsBridge("orders", nats_stream.options(**settings)).open()


async def test_a_deleted_consumer_is_a_disconnect_and_opening_makes_it_again(
    nats_stream: NatsStream, bridge: NatsBridge
) -> None:
    await nats_stream.js.delete_consumer(nats_stream.name, "hammerwork")
    await disconnected(bridge)
    await bridge.open()
    await nats_stream.send(b"1")
    assert (await pull_one(bridge)).body == b"1"


async def test_a_consumer_that_gives_up_is_warned_of(nats_stream: NatsStream) -> None:
    config = ConsumerConfig(durable_name="hammerwork", max_deliver=3)
    await nats_stream.js.add_consumer(nats_stream.name, config)
    guarantee = await NatsBridge("orders", nats_stream.options()).guarantee()
    assert any("after 3 deliveries" in warning for warning in guarantee.warnings)


# --- what may be wrong -----------------------------------------------------------------------------


async def test_a_wrong_password_is_a_misconfiguration_that_does_not_tell_it(nats_stream: NatsStream) -> None:
    url = nats_stream.url.replace("://", "://tester:wr0ng@")
    with pytest.raises(Misconfigured) as refused:
        await NatsBridge("orders", nats_stream.options(url=url)).open()
    assert "password of the url" in refused.value.hint
    assert "wr0ng" not in str(refused.value) + refused.value.hint
    right = NatsBridge("orders", nats_stream.options(url=url.replace("wr0ng", PASSWORD)))
    await right.open()
    await right.close()


async def test_nobody_listening_is_a_disconnect_unless_another_host_answers(nats_stream: NatsStream) -> None:
    async with FaultProxy("127.0.0.1", 1) as proxy:
        nobody = f"nats://127.0.0.1:{proxy.port}"
    named = nobody.replace("://", "://ana:secretword@")
    with pytest.raises(Disconnected, match=rf"NATS at 127\.0\.0\.1:{proxy.port} is away") as away:
        await NatsBridge("orders", nats_stream.options(url=named)).open()
    assert "secretword" not in str(away.value)
    bridge = await other_bridge(nats_stream, url=nobody, hosts=[nats_stream.url.partition("//")[2]])
    await bridge.close()


@pytest.mark.chaos
async def test_a_silent_server_is_a_disconnect_after_three_heartbeats(
    nats_service: BrokerService, nats_stream: NatsStream
) -> None:
    async with FaultProxy(*nats_service.address) as proxy:
        url = f"nats://127.0.0.1:{proxy.port}"
        bridge = await other_bridge(nats_stream, url=url, heartbeat=timedelta(seconds=1))
        assert await bridge.pull(SOON) == []
        proxy.blackhole()
        began = asyncio.get_running_loop().time()
        await disconnected(bridge)
        assert asyncio.get_running_loop().time() - began < 10
        proxy.cut()
        await bridge.close()


# --- all the way -----------------------------------------------------------------------------------


async def test_a_connection_cut_around_an_answer_loses_nothing_and_makes_nothing_twice(
    nats_service: BrokerService, nats_stream: NatsStream, database: Database
) -> None:
    async with FaultProxy(*nats_service.address) as proxy:
        options = nats_stream.options(url=f"nats://127.0.0.1:{proxy.port}", lease=timedelta(seconds=1))
        async with ingesting(NatsBridge("orders", options), database):
            for number, words in enumerate((b"cut-here", b"+ACK"), 1):
                cut = proxy.cut_after(words, "to_client" if words == b"cut-here" else "to_server")
                await nats_stream.send(b'{"id": "cut-here"}')
                await asyncio.wait_for(cut.wait(), 10)

                async def arrived(number: int = number) -> bool:
                    return len(await payloads(database)) == number and await nats_stream.owed() == 0

                await until(arrived)


async def test_poison_becomes_a_dead_letter_and_the_rest_goes_on(
    nats_stream: NatsStream, database: Database
) -> None:
    for body in (b"not json", b"", b'{"n": 1}'):
        await nats_stream.send(body)
    async with ingesting(NatsBridge("orders", nats_stream.options()), database):

        async def settled() -> bool:
            return len(await payloads(database)) == 1 and await nats_stream.owed() == 0

        await until(settled)
    assert sorted(await reasons(database)) == ["empty_body", "not_json"]


@pytest.mark.chaos
async def test_a_killed_server_loses_nothing(
    nats_service: BrokerService, nats_stream: NatsStream, database: Database
) -> None:
    if not nats_service.ours:
        pytest.skip("the server is not ours to kill")
    for n in range(50):
        await nats_stream.send(b'{"n": %d}' % n)
    bridge = NatsBridge("orders", nats_stream.options(lease=timedelta(seconds=2)))
    async with ingesting(bridge, database, count=7) as intake:

        async def some() -> bool:
            return intake.counts.stored > 10

        await until(some)
        await asyncio.to_thread(nats_service.restart)

        async def back() -> bool:
            return nats_stream.client.is_connected

        await until(back)
        for n in range(50, 60):
            await nats_stream.send(b'{"n": %d}' % n)

        async def all_there() -> bool:
            return len(await payloads(database)) >= 60 and await nats_stream.owed() == 0

        await until(all_there)
    assert sorted(payload["n"] for payload in await payloads(database)) == list(range(60))
