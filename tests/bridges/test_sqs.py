"""SqsBridge against an emulator of SQS: what it hands over, keeps hidden, deletes and gives back."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from hammerwork.bridges.sqs import SqsBridge
from hammerwork.bridges.sqs.holding import hiding
from hammerwork.core.message import Fate, Receipt, Want

from ..services.aws_proxy import AwsProxy, answering, failing_entries, losing_the_answer
from .rabbitmq_producer import SOON, pull_all, pull_one, stored, until
from .sqs_producer import SqsProducer, create_queue

SHORT = {"visibility": 1}


async def test_a_message_comes_with_all_that_sqs_knows_of_it(sqs: SqsProducer, sqs_bridge: SqsBridge) -> None:
    sent = await sqs.send(
        '{"order": 7}',
        attributes={
            "tenant": "acme",
            "weight": 1.5,
            "odd": ("Number.odd", "NaN"),
            "token": b"\x00\xff",
            "mine": ("String.mine", "x"),
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "Content-Type": "application/json",
        },
    )
    message = await pull_one(sqs_bridge)
    assert message.body == b'{"order": 7}'
    assert message.id == sent
    assert message.headers == {
        "tenant": "acme",
        "weight": "1.5",
        "odd": "NaN",
        "token": {"base64": "AP8="},
        "mine": "x",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "Content-Type": "application/json",
    }
    assert message.content_type == "application/json"
    assert message.attempt == 1
    assert message.key is None
    assert message.timestamp is not None
    assert abs(datetime.now(UTC) - message.timestamp) < timedelta(minutes=1)
    assert message.coordinates["broker"] == "sqs"
    assert message.coordinates["queue"] == sqs.url.rpartition("/")[2]
    assert message.coordinates["message_id"] == sent


async def test_several_pollers_fill_one_buffer(sqs: SqsProducer) -> None:
    bodies = [f'{{"n": {n}}}' for n in range(60)]
    await sqs.send_many(bodies)
    bridge = SqsBridge("orders", sqs.options(pollers=3))
    await bridge.open()
    deliveries = await pull_all(bridge, 60)
    assert sorted(d.message.body.decode() for d in deliveries) == sorted(bodies)
    await bridge.settle(stored(deliveries))
    await bridge.close()
    assert await sqs.empty()


async def test_a_pull_is_bounded_by_count_and_size_and_by_its_wait(
    sqs: SqsProducer, sqs_bridge: SqsBridge
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await sqs_bridge.pull(Want(wait=timedelta(milliseconds=200))) == []
    assert 0.19 <= loop.time() - began < 2
    await sqs.send_many(["x" * 100] * 8)
    first = await pull_all(sqs_bridge, 1, Want(count=1))
    await until(lambda: _buffered(sqs, 0))
    assert len(await sqs_bridge.pull(Want(size=250, linger=timedelta(0)))) == 2
    assert len(await sqs_bridge.pull(Want(size=1, linger=timedelta(0)))) == 1
    await sqs_bridge.release(first)


async def _buffered(sqs: SqsProducer, visible: int) -> bool:
    return (await sqs.counts())[0] == visible


async def test_no_more_is_held_than_the_prefetch_allows(sqs: SqsProducer) -> None:
    await sqs.send_many(["{}"] * 50)
    bridge = SqsBridge("orders", sqs.options(prefetch=20))
    await bridge.open()
    deliveries = await pull_all(bridge, 20)
    assert await bridge.pull(SOON) == []
    assert await sqs.counts() == (30, 20)
    await bridge.settle(stored(deliveries))
    assert len(await pull_all(bridge, 20)) == 20
    await bridge.close()


async def test_what_is_held_for_long_stays_hidden(sqs: SqsProducer) -> None:
    """Three times its visibility, in the buffer as well as unsettled."""
    await sqs.send_many(["1", "2"])
    bridge = SqsBridge("orders", sqs.options(**SHORT))
    await bridge.open()
    deliveries = await pull_all(bridge, 1, Want(count=1))
    assert await sqs.receive(wait=3) == []
    deliveries += await pull_all(bridge, 1)
    await bridge.settle(stored(deliveries))
    assert await sqs.empty()
    await bridge.close()


async def test_a_message_that_expired_is_deleted_by_its_newest_handle(
    sqs: SqsProducer, aws_proxy: AwsProxy
) -> None:
    """Nothing can be extended, so it comes a second time while we hold it."""
    aws_proxy.always("ChangeMessageVisibilityBatch", answering(503, "ServiceUnavailable"))
    await sqs.send()
    bridge = SqsBridge("orders", sqs.options(**SHORT))
    await bridge.open()
    deliveries = await pull_all(bridge, 1)
    handle = deliveries[0].handle.handle

    async def came_again() -> bool:
        assert await bridge.pull(Want(wait=timedelta(0))) == []
        return bool(deliveries[0].handle.handle != handle)

    await until(came_again)
    await bridge.settle(stored(deliveries))
    assert aws_proxy.calls["DeleteMessageBatch"][-1]["Entries"][0]["ReceiptHandle"] != handle
    assert await sqs.empty()
    await bridge.close()


async def test_only_what_was_not_deleted_is_deleted_again(sqs: SqsProducer, aws_proxy: AwsProxy) -> None:
    await sqs.send_many(["{}"] * 10)
    bridge = SqsBridge("orders", sqs.options())
    await bridge.open()
    aws_proxy.plan(
        "DeleteMessageBatch", failing_entries("InternalError", 2, 5), failing_entries("InternalError", 1)
    )
    await bridge.settle(stored(await pull_all(bridge, 10)))
    assert [len(call["Entries"]) for call in aws_proxy.calls["DeleteMessageBatch"]] == [10, 2, 1]
    assert await sqs.empty()
    await bridge.close()


async def test_a_handle_that_is_too_old_is_no_error_and_not_tried_again(
    sqs: SqsProducer, aws_proxy: AwsProxy
) -> None:
    await sqs.send()
    bridge = SqsBridge("orders", sqs.options())
    await bridge.open()
    aws_proxy.always("DeleteMessageBatch", failing_entries("ReceiptHandleIsInvalid", 0))
    await bridge.settle(stored(await pull_all(bridge, 1)))
    assert len(aws_proxy.calls["DeleteMessageBatch"]) == 1
    await bridge.close()


async def test_an_answer_that_is_lost_loses_no_message(sqs: SqsProducer, aws_proxy: AwsProxy) -> None:
    await sqs.send_many(["1", "2", "3"])
    aws_proxy.plan("ReceiveMessage", losing_the_answer())
    bridge = SqsBridge("orders", sqs.options(**SHORT))
    await bridge.open()
    deliveries = await pull_all(bridge, 3)
    assert {d.message.attempt for d in deliveries} == {2}
    await bridge.close()


async def test_what_is_released_is_there_for_others_at_once_with_what_waits(
    sqs: SqsProducer, sqs_bridge: SqsBridge
) -> None:
    await sqs.send_many(["1", "2", "3"])
    deliveries = await pull_all(sqs_bridge, 1, Want(count=1))
    await sqs_bridge.close()  # its polls are over: what is given back now stays where it is
    await sqs_bridge.open()
    deliveries = await pull_all(sqs_bridge, 1, Want(count=1))
    await until(lambda: _buffered(sqs, 0))
    await sqs_bridge.close()
    assert (await sqs.counts())[0] == 0, "handed back a second time, they come later"
    assert deliveries[0].message.attempt == 2


def test_what_comes_back_again_and_again_comes_ever_later() -> None:
    assert [hiding(attempt) for attempt in (0, 1, 2, 3, 4, 1000)] == [0, 0, 5, 10, 20, 900]


async def test_a_poll_that_is_under_way_at_the_close_loses_nothing(sqs: SqsProducer) -> None:
    """The message comes while the bridge closes: the poll takes it, and it is there again afterwards."""
    bridge = SqsBridge("orders", sqs.direct().options(wait=2))
    await bridge.open()
    assert await bridge.pull(Want(wait=timedelta(milliseconds=100))) == []
    closing = asyncio.create_task(bridge.close(), name="close")
    await asyncio.sleep(0)
    await sqs.send("late")
    await asyncio.wait_for(closing, 5)
    assert await sqs.counts() == (1, 0)


async def test_a_close_is_short_and_what_its_polls_still_bring_goes_back(sqs: SqsProducer) -> None:
    bridge = SqsBridge("orders", sqs.direct().options(wait=10, pollers=1, visibility=120))
    await bridge.open()
    assert await bridge.pull(Want(wait=timedelta(milliseconds=100))) == []
    async with asyncio.timeout(5):
        await bridge.close()
    assert polls("orders")
    await sqs.send("late")
    async with asyncio.timeout(5):
        while tasks := polls("orders"):
            await asyncio.wait(tasks)
    assert await sqs.counts() == (1, 0)
    other = SqsBridge("others", sqs.options(wait=1))
    await other.open()
    assert (await pull_one(other)).attempt == 2
    await other.close()


async def test_a_poll_that_is_cut_with_its_process_is_said(sqs: SqsProducer) -> None:
    bridge = SqsBridge("orders", sqs.direct().options(wait=10, pollers=2, visibility=120))
    await bridge.open()
    assert await bridge.pull(Want(wait=timedelta(milliseconds=100))) == []
    await bridge.close()
    with capture_logs() as logs:
        tasks = polls("orders")
        for task in tasks:
            task.cancel()  # as the end of the event loop does
        await asyncio.wait(tasks)
    assert [(told["event"], told["polls"], told["hidden_for"]) for told in logs] == [
        ("sqs.polls_cut", 2, 120)
    ]


def polls(bridge: str) -> set[asyncio.Task[object]]:
    """What of a bridge still runs."""
    return {task for task in asyncio.all_tasks() if task.get_name().startswith(f"sqs {bridge} ")}


async def test_a_bridge_that_rests_holds_nothing_and_stays_connected(
    sqs: SqsProducer, sqs_bridge: SqsBridge
) -> None:
    await sqs.send_many(["1", "2", "3"])
    [first] = await pull_all(sqs_bridge, 1, Want(count=1))
    await until(lambda: _buffered(sqs, 0))
    await sqs_bridge.settle(stored([first]))

    async def handed_back() -> bool:
        await sqs_bridge.rest()
        return await sqs.counts() in ((2, 0), (0, 2)) and not await sqs_bridge.pull(Want(wait=timedelta(0)))

    await until(handed_back)
    assert len(await pull_all(sqs_bridge, 2, SOON)) == 2


async def test_the_lag_counts_what_waits(sqs: SqsProducer, sqs_bridge: SqsBridge) -> None:
    assert await sqs_bridge.lag() == 0
    await sqs.send_many(["{}"] * 3)
    assert await sqs_bridge.lag() == 3


async def test_a_message_with_a_delay_comes_when_it_is_over(sqs: SqsProducer, sqs_bridge: SqsBridge) -> None:
    await sqs.send("late", DelaySeconds=1)
    assert await sqs_bridge.pull(Want(wait=timedelta(milliseconds=300))) == []
    assert (await pull_one(sqs_bridge)).body == b"late"


async def test_settling_twice_or_after_a_close_is_no_error(sqs: SqsProducer, sqs_bridge: SqsBridge) -> None:
    await sqs.send_many(["1", "2"])
    deliveries = await pull_all(sqs_bridge, 2)
    await sqs_bridge.settle(stored(deliveries[:1]))
    await sqs_bridge.settle(stored(deliveries[:1]))
    await sqs_bridge.close()
    await sqs_bridge.settle(stored(deliveries[1:]))
    await sqs_bridge.open()
    await sqs_bridge.settle(stored(deliveries[1:]))
    assert sum(await sqs.counts()) == 1


# --- FIFO ----------------------------------------------------------------------------------------


async def test_groups_come_in_their_order_through_several_pollers(fifo: SqsProducer) -> None:
    for group in ("a", "b"):
        await fifo.send_many([f"{group}{n}" for n in range(25)], group=group)
    bridge = SqsBridge("orders", fifo.options(pollers=3))
    await bridge.open()
    seen = await _settled(bridge, 50)
    assert seen == {group: [f"{group}{n}" for n in range(25)] for group in ("a", "b")}
    assert await fifo.empty()


async def _settled(bridge: SqsBridge, count: int) -> dict[str, list[str]]:
    """Pull and settle so many messages; their bodies by group, in the order of the pulls."""
    seen: dict[str, list[str]] = defaultdict(list)
    async with asyncio.timeout(20):
        while sum(map(len, seen.values())) < count:
            deliveries = await bridge.pull(SOON)
            for delivery in deliveries:
                message = delivery.message
                assert message.key is not None
                seen[message.key].append(message.body.decode())
                assert message.coordinates["deduplication_id"]
                assert message.coordinates["sequence_number"]
            await bridge.settle(stored(deliveries))
    await bridge.close()
    return seen


async def test_a_group_that_is_released_comes_again_whole_and_in_its_order(fifo: SqsProducer) -> None:
    await fifo.send_many([str(n) for n in range(15)], group="a")
    bridge = SqsBridge("orders", fifo.options())
    await bridge.open()
    deliveries = await pull_all(bridge, 3, Want(count=3))
    await bridge.release(deliveries)
    seen = await _settled(bridge, 15)
    assert seen == {"a": [str(n) for n in range(15)]}


async def test_a_dead_letter_does_not_hold_up_its_group(fifo: SqsProducer) -> None:
    await fifo.send_many(["bad", "good"], group="a")
    bridge = SqsBridge("orders", fifo.options())
    await bridge.open()
    first, second = await pull_all(bridge, 2)
    await bridge.settle([Receipt(first, Fate.DEAD_LETTERED), Receipt(second, Fate.STORED)])
    await bridge.close()
    assert await fifo.empty()


@pytest.mark.parametrize("scope", ["queue", "messageGroup"])
async def test_deduplication_ids_count_where_the_queue_says(sqs: SqsProducer, scope: str) -> None:
    """In a FIFO queue of high throughput two groups may use the same id for two messages."""

    more = (
        {"DeduplicationScope": scope, "FifoThroughputLimit": "perMessageGroupId"} if scope != "queue" else {}
    )
    url = await create_queue(sqs.client, fifo=True, **more)
    queue = SqsProducer(sqs.client, sqs.service, url, sqs.endpoint)
    bridge = SqsBridge("orders", queue.options(identity="deduplication_id"))
    await bridge.open()
    await queue.send(MessageGroupId="g", MessageDeduplicationId="order-1")
    expected = "order-1" if scope == "queue" else "1:g:order-1"
    assert (await pull_one(bridge)).id == expected
    await bridge.close()
    await sqs.client.delete_queue(QueueUrl=url)
