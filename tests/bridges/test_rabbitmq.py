"""RabbitmqBridge against a real broker: what it hands over, what it gives back, and how it fails."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from hammerwork.bridges.rabbitmq import RabbitmqBridge
from hammerwork.core.errors import Disconnected, Misconfigured
from hammerwork.core.message import Want

from ..services.proxy import FaultProxy
from ..services.rabbitmq import RabbitmqService
from .rabbitmq_producer import (
    SOON,
    Producer,
    disconnected,
    pull_all,
    pull_one,
    ready_is,
    stored,
    until,
)


async def test_it_hands_over_messages_in_the_order_of_the_queue(
    producer: Producer, bridge: RabbitmqBridge
) -> None:
    for n in range(20):
        await producer.send(b"%d" % n, message_id=f"m{n}")
    deliveries = await pull_all(bridge, 20)
    assert [d.message.body for d in deliveries] == [b"%d" % n for n in range(20)]
    assert [d.message.id for d in deliveries] == [f"m{n}" for n in range(20)]


async def test_a_pull_brings_at_most_the_count_that_is_wanted(
    producer: Producer, bridge: RabbitmqBridge
) -> None:
    for _ in range(5):
        await producer.send()
    assert [len(await bridge.pull(Want(count=2))) for _ in range(3)] == [2, 2, 1]


async def test_a_pull_stops_at_the_size_but_brings_one_message_however_large(
    producer: Producer, bridge: RabbitmqBridge
) -> None:
    for body in (b"x" * 500, b"x" * 100, b"x" * 100, b"x" * 100):
        await producer.send(body)
    await ready_is(producer, 0)
    want = Want(size=250, linger=timedelta(milliseconds=200))
    assert [len(await bridge.pull(want)) for _ in range(3)] == [1, 2, 1]


async def test_an_empty_queue_gives_nothing_after_the_wait(bridge: RabbitmqBridge) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await bridge.pull(Want(wait=timedelta(milliseconds=200))) == []
    assert 0.19 <= loop.time() - began < 2


async def test_a_pull_does_not_linger_for_more_than_the_prefetch_allows(producer: Producer) -> None:
    bridge = RabbitmqBridge("orders", producer.options(prefetch=3))
    await bridge.open()
    for _ in range(5):
        await producer.send()
    async with asyncio.timeout(5):
        assert len(await bridge.pull(Want(linger=timedelta(minutes=1)))) == 3
    await bridge.close()


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00\xff\xfe\xce", bytes(range(256)) * 16, b"\xce" * 131_072, secrets.token_bytes(5_000_000)],
    ids=["empty", "binary", "every byte", "frame ends", "5 MB in many frames"],
)
async def test_a_body_of_any_bytes_arrives_exactly(
    producer: Producer, bridge: RabbitmqBridge, body: bytes
) -> None:
    await producer.send(body)
    assert (await pull_one(bridge)).body == body


async def test_bodies_of_every_length_arrive_one_after_the_other(
    producer: Producer, bridge: RabbitmqBridge
) -> None:
    bodies = [b"", secrets.token_bytes(1_000_000), b"\x02\x00\x01\x00\x00" * 9_000, b"last"]
    for body in bodies:
        await producer.send(body)
    assert [d.message.body for d in await pull_all(bridge, len(bodies))] == bodies


async def test_settled_messages_are_gone_for_good(producer: Producer, bridge: RabbitmqBridge) -> None:
    for _ in range(30):
        await producer.send()
    await bridge.settle(stored(await pull_all(bridge, 30)))
    await bridge.close()
    assert await producer.ready() == 0


async def test_messages_that_were_not_settled_return_when_the_bridge_closes(
    producer: Producer, bridge: RabbitmqBridge
) -> None:
    for n in range(4):
        await producer.send(b"%d" % n)
    deliveries = [*await bridge.pull(Want(count=2)), *await bridge.pull(Want(count=1))]
    assert len(deliveries) == 3
    await bridge.close()
    await ready_is(producer, 4)


async def test_settling_a_later_pull_leaves_an_earlier_one_owed(
    producer: Producer, bridge: RabbitmqBridge
) -> None:
    for n in range(6):
        await producer.send(b"%d" % n)
    first = await pull_all(bridge, 3, Want(count=3))
    second = await pull_all(bridge, 3, Want(count=3))
    await bridge.settle(stored(second))
    await bridge.close()
    await ready_is(producer, 3)

    await bridge.open()
    again = await pull_all(bridge, 3)
    assert [d.message.body for d in again] == [d.message.body for d in first]


async def test_settling_with_holes_acknowledges_exactly_what_was_settled(
    producer: Producer, bridge: RabbitmqBridge
) -> None:
    for n in range(8):
        await producer.send(b"%d" % n)
    deliveries = await pull_all(bridge, 8)
    await bridge.settle(stored([deliveries[n] for n in (0, 1, 3, 6)]))
    await bridge.settle(stored([deliveries[n] for n in (2, 4)]))
    await bridge.close()

    await bridge.open()
    assert [d.message.body for d in await pull_all(bridge, 2)] == [b"5", b"7"]


async def test_settling_twice_is_no_error(producer: Producer, bridge: RabbitmqBridge) -> None:
    await producer.send()
    receipts = stored(await pull_all(bridge, 1))
    await bridge.settle(receipts)
    await bridge.settle(receipts)
    assert await bridge.pull(SOON) == []


async def test_released_messages_return_to_the_queue_and_do_not_come_straight_back(
    producer: Producer, bridge: RabbitmqBridge
) -> None:
    for n in range(6):
        await producer.send(b"%d" % n)
    taken = await pull_all(bridge, 2, Want(count=2))
    await bridge.release(taken)
    await ready_is(producer, 6)
    await asyncio.sleep(0.1)
    assert await producer.ready() == 6

    again = await pull_all(bridge, 6)
    assert [d.message.body for d in again] == [b"%d" % n for n in range(6)]
    assert again[0].message.coordinates["redelivered"] is True
    await bridge.settle(stored(again))
    await bridge.close()
    assert await producer.ready() == 0


async def test_a_release_between_settles_gives_back_only_what_was_released(
    producer: Producer, bridge: RabbitmqBridge
) -> None:
    for n in range(4):
        await producer.send(b"%d" % n)
    deliveries = await pull_all(bridge, 4)
    await bridge.release(deliveries[1:2])
    await ready_is(producer, 1)
    await bridge.settle(stored([deliveries[0], *deliveries[2:]]))
    await bridge.close()
    await ready_is(producer, 1)


async def test_closing_twice_and_closing_unopened_are_no_errors(producer: Producer) -> None:
    bridge = RabbitmqBridge("orders", producer.options())
    await bridge.close()
    await bridge.open()
    await bridge.close()
    await bridge.close()
    with pytest.raises(Disconnected, match="not open"):
        await bridge.pull(SOON)


async def test_a_deleted_queue_is_a_disconnect_and_then_a_misconfiguration(
    producer: Producer, bridge: RabbitmqBridge
) -> None:
    await producer.channel.queue_delete(producer.queue)
    assert "cancelled the consumer" in str(await disconnected(bridge))
    with pytest.raises(Misconfigured, match="no queue") as refused:
        await bridge.open()
    assert "declare = 'create'" in refused.value.hint


async def test_closed_connections_are_a_disconnect_and_opening_again_resumes(
    rabbitmq_service: RabbitmqService, producer: Producer, bridge: RabbitmqBridge
) -> None:
    for n in range(5):
        await producer.send(b"%d" % n)
    old = await pull_all(bridge, 2, Want(count=2))
    await asyncio.to_thread(rabbitmq_service.close_all_connections, "maintenance")
    assert "maintenance" in str(await disconnected(bridge))

    await bridge.open()
    deliveries = await pull_all(bridge, 5)
    await bridge.settle(stored(old))  # too late: tags of a channel that is no more
    await bridge.close()

    await bridge.open()
    deliveries = await pull_all(bridge, 5)
    assert [d.message.body for d in deliveries] == [b"%d" % n for n in range(5)]
    assert all(d.message.coordinates["redelivered"] for d in deliveries)
    await bridge.settle(stored(deliveries))
    assert await bridge.pull(SOON) == []


async def test_an_acknowledgement_after_the_connection_is_gone_is_no_error(
    rabbitmq_service: RabbitmqService, producer: Producer, bridge: RabbitmqBridge
) -> None:
    await producer.send()
    deliveries = await pull_all(bridge, 1)
    await asyncio.to_thread(rabbitmq_service.close_all_connections)
    await bridge.settle(stored(deliveries))
    await disconnected(bridge)
    await bridge.settle(stored(deliveries))
    await bridge.release(deliveries)
    await bridge.close()


async def test_what_a_lost_channel_had_sent_ahead_is_not_handed_over(
    rabbitmq_service: RabbitmqService, producer: Producer, bridge: RabbitmqBridge
) -> None:
    for _ in range(10):
        await producer.send()
    await pull_all(bridge, 1, Want(count=1))
    await ready_is(producer, 0)
    link = bridge._link
    assert link is not None
    await asyncio.to_thread(rabbitmq_service.close_all_connections)

    async def lost() -> bool:
        return link.lost is not None

    await until(lost)
    with pytest.raises(Disconnected):
        await bridge.pull(SOON)


async def test_a_connection_lost_while_a_pull_lingers_takes_its_messages_along(
    rabbitmq_service: RabbitmqService, producer: Producer, bridge: RabbitmqBridge
) -> None:
    await producer.send()
    pulling = asyncio.create_task(bridge.pull(Want(linger=timedelta(minutes=1))), name="pull")
    await ready_is(producer, 0)
    await asyncio.to_thread(rabbitmq_service.close_all_connections)
    with pytest.raises(Disconnected):
        await asyncio.wait_for(pulling, timeout=10)


async def test_an_acknowledgement_on_a_connection_that_is_just_being_cut_is_no_error(
    producer: Producer,
) -> None:
    parts = urlsplit(producer.url)
    async with FaultProxy(parts.hostname or "", parts.port or 0) as proxy:
        url = producer.url.replace(f":{parts.port}", f":{proxy.port}")
        bridge = RabbitmqBridge("orders", producer.options(url=url))
        await bridge.open()
        for _ in range(3):
            await producer.send()
        deliveries = await pull_all(bridge, 3)
        link = bridge._link
        assert link is not None
        proxy.cut()
        assert link.lost is None
        await bridge.settle(stored(deliveries[1:]))
        await disconnected(bridge)
        await bridge.close()


@pytest.mark.chaos
async def test_a_killed_broker_loses_nothing_that_was_not_settled(
    rabbitmq_service: RabbitmqService, producer: Producer, bridge: RabbitmqBridge
) -> None:
    for n in range(10):
        await producer.send(b"%d" % n)
    await bridge.settle(stored(await pull_all(bridge, 4, Want(count=4))))
    await pull_all(bridge, 3, Want(count=3))
    await asyncio.to_thread(rabbitmq_service.restart)
    await disconnected(bridge)
    await bridge.open()
    bodies = {d.message.body for d in await bridge.pull(SOON)}
    assert bodies >= {b"%d" % n for n in range(4, 10)}


@pytest.mark.chaos
async def test_a_silent_broker_is_a_disconnect_after_two_heartbeats(producer: Producer) -> None:
    parts = urlsplit(producer.url)
    async with FaultProxy(parts.hostname or "", parts.port or 0) as proxy:
        url = producer.url.replace(f":{parts.port}", f":{proxy.port}")
        bridge = RabbitmqBridge("orders", producer.options(url=url, heartbeat=timedelta(seconds=1)))
        await bridge.open()
        for _ in range(5):  # a living connection is idle for longer than two heartbeats
            assert await bridge.pull(Want(wait=timedelta(milliseconds=600))) == []
        proxy.blackhole()
        began = asyncio.get_running_loop().time()
        assert "nothing was heard" in str(await disconnected(bridge))
        assert asyncio.get_running_loop().time() - began < 5
        await bridge.close()


@pytest.mark.chaos
async def test_a_broker_that_only_delivers_is_not_taken_for_a_silent_one(producer: Producer) -> None:
    bridge = RabbitmqBridge("orders", producer.options(heartbeat=timedelta(seconds=1)))
    await bridge.open()
    loop = asyncio.get_running_loop()
    client_gives_up = loop.time() + 3 * (1 + 1) + 1
    while loop.time() < client_gives_up:
        await producer.send()
        deliveries = await pull_all(bridge, 1, Want(linger=timedelta(milliseconds=50)))
        await bridge.settle(stored(deliveries))
    await bridge.close()


@pytest.mark.chaos
async def test_a_broker_that_accepts_and_says_nothing_is_a_disconnect(producer: Producer) -> None:
    parts = urlsplit(producer.url)
    async with FaultProxy(parts.hostname or "", parts.port or 0) as proxy:
        proxy.blackhole()
        url = producer.url.replace(f":{parts.port}", f":{proxy.port}")
        options = producer.options(url=url, connect_timeout=timedelta(milliseconds=300))
        with pytest.raises(Disconnected, match="did not answer"):
            await RabbitmqBridge("orders", options).open()


async def test_a_cut_connection_while_opening_is_a_disconnect(producer: Producer) -> None:
    parts = urlsplit(producer.url)
    async with FaultProxy(parts.hostname or "", parts.port or 0) as proxy:
        url = producer.url.replace(f":{parts.port}", f":{proxy.port}")
        for words in (b"AMQPLAIN", producer.queue.encode()):
            proxy.cut_after(words, "to_client")
            with pytest.raises(Disconnected):
                await RabbitmqBridge("orders", producer.options(url=url)).open()


async def test_nobody_listening_is_a_disconnect(producer: Producer) -> None:
    async with FaultProxy("127.0.0.1", 1) as proxy:
        port = proxy.port
    options = producer.options(url=f"amqp://guest:secretword@127.0.0.1:{port}/")
    with pytest.raises(Disconnected, match=f"RabbitMQ at amqp://127.0.0.1:{port}/ is away") as away:
        await RabbitmqBridge("orders", options).open()
    assert "secretword" not in str(away.value)
