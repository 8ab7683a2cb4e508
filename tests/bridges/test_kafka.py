"""KafkaBridge against a real broker: where it reads from, what it hands over, and how it goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from hammerwork.bridges.kafka import KafkaBridge
from hammerwork.bridges.kafka.session import Session
from hammerwork.core.errors import Disconnected, Misconfigured
from hammerwork.core.message import Delivery, LogBridge, TappableBridge, Want
from hammerwork.core.postgres.database import Database

from ..chaos.running import running
from ..services import NotOurs
from .kafka_topic import PROMPT, SOON, Topic, kept, pull_all, pull_until_error, stored, topic_on, until


@asynccontextmanager
async def opened(topic: Topic, database: Database, **options: Any) -> AsyncIterator[KafkaBridge]:
    bridge = topic.bridge(database, **options)
    await bridge.open()
    try:
        yield bridge
    finally:
        await bridge.close()


def bodies(deliveries: list[Delivery]) -> list[str]:
    return [delivery.message.body.decode() for delivery in deliveries]


async def test_it_is_a_bridge_to_a_log(topic: Topic, database: Database) -> None:
    assert isinstance(topic.bridge(database), LogBridge)


# --- what a pull brings ---


async def test_it_hands_over_records_in_the_order_of_the_partition(topic: Topic, database: Database) -> None:
    for n in range(20):
        await topic.send(b"%d" % n)
    async with opened(topic, database) as bridge:
        deliveries = await pull_all(bridge, 20)
    assert bodies(deliveries) == [str(n) for n in range(20)]
    places = [d.position for d in deliveries if d.position]
    assert [(p.partition, p.offset) for p in places] == [(f"{topic.name}/0", n) for n in range(20)]


async def test_a_pull_brings_at_most_the_count_and_the_size_that_are_wanted(
    topic: Topic, database: Database
) -> None:
    for size in (10, 10, 10, 500, 100, 100, 100):
        await topic.send(b"x" * size)
    async with opened(topic, database) as bridge:
        assert len(await pull_all(bridge, 2, Want(count=2))) == 2
        want = Want(size=250, linger=timedelta(milliseconds=200))
        sizes = [[len(d.message.body) for d in await bridge.pull(want)] for _ in range(4)]
    assert sizes == [[10], [500], [100, 100], [100]]


async def test_an_empty_topic_gives_nothing_after_the_wait(topic: Topic, database: Database) -> None:
    async with opened(topic, database) as bridge:
        began = time.monotonic()
        assert await bridge.pull(Want(wait=timedelta(milliseconds=200))) == []
        assert 0.19 < time.monotonic() - began < 5


async def test_a_record_larger_than_every_limit_comes_alone(topic: Topic, database: Database) -> None:
    async with topic_on(topic.service, max_message_bytes="8000000") as large:
        await large.send(b"before")
        await large.send(b"x" * 3_000_000)
        await large.send(b"after")
        options = {"partition_fetch_size": 1000, "fetch_size": 2000}
        async with opened(large, database, **options) as bridge:
            deliveries = await pull_all(bridge, 3)
    assert [len(d.message.body) for d in deliveries] == [6, 3_000_000, 5]


# --- where a partition begins and goes on ---


async def test_it_goes_on_where_postgres_says_not_where_the_group_has_committed(
    topic: Topic, database: Database
) -> None:
    await topic.fill(f"m{n}" for n in range(10))
    async with opened(topic, database) as bridge:
        deliveries = await pull_all(bridge, 10)
        await bridge.settle(stored(deliveries))
    assert await committed(topic) == {0: 10}
    async with opened(topic, database) as bridge:
        # Nothing of this was stored by a framework, so all of it comes again.
        assert len(await pull_all(bridge, 10)) == 10


async def test_what_is_settled_is_told_to_the_group_for_its_lag(topic: Topic, database: Database) -> None:
    await topic.fill(f"m{n}" for n in range(4))
    async with opened(topic, database) as bridge:
        deliveries = await pull_all(bridge, 4)
        assert await bridge.lag() == 4
        await bridge.settle(stored(deliveries[:3]))
        assert await bridge.lag() == 1
        await until(lambda: _commits(topic, 3), "the group knows")


async def _commits(topic: Topic, offset: int) -> bool:
    return await committed(topic) == {0: offset}


async def committed(topic: Topic) -> dict[int, int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=topic.service.bootstrap)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(f"group.{topic.name}")
    finally:
        await admin.close()
    return {partition.partition: at.offset for partition, at in found.items()}


async def test_a_new_bridge_begins_where_it_is_told(topic: Topic, database: Database) -> None:
    for n in range(3):
        await topic.send(b"%d" % n, timestamp_ms=1_700_000_000_000 + n * 1000)

    async def first(start: object) -> str:
        async with opened(topic, database, start=start) as bridge:
            reading = asyncio.create_task(pull_all(bridge, 1), name="pull")
            await until(_is_placed, "the partition is placed")
            if start == "latest":
                await topic.send(b"new")
            found = bodies(await reading)
        await forget(database)
        return found[0]

    async def _is_placed() -> bool:
        return any(offset is not None for offset in (await kept(database)).values())

    assert await first("group") == "0"
    assert await first("earliest") == "0"
    assert await first(datetime.fromtimestamp(1_700_000_001.5, UTC)) == "2"
    assert await first("latest") == "new"


async def forget(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("delete from hammerwork.bridge_offsets")


async def test_a_group_that_has_committed_can_be_taken_over(topic: Topic, database: Database) -> None:
    await topic.fill(f"m{n}" for n in range(6))
    async with opened(topic, database) as bridge:
        await bridge.settle(stored((await pull_all(bridge, 6))[:4]))
        await until(lambda: _commits(topic, 4), "the group knows")
    await forget(database)
    async with opened(topic, database, start="group") as bridge:
        places = [d.position.offset for d in await pull_all(bridge, 1) if d.position]
    assert places[0] == 4


async def test_partitions_and_topics_that_come_later_are_read_from_their_start(
    topic: Topic, database: Database
) -> None:
    prefix = topic.name
    named = {"topics": [], "pattern": rf"{prefix}(\.\w+)?", "exclude": r".*\.audit"}
    await topic.send(b"old")
    async with opened(topic, database, **named, metadata_max_age=0.3) as bridge:
        assert bodies(await pull_all(bridge, 1)) == ["old"]
        await topic.service.add_partitions(topic.name, 2)
        for name in (f"{prefix}.late", f"{prefix}.audit"):
            await topic.service.create_topic(name)
        async with AIOKafkaProducer(bootstrap_servers=topic.service.bootstrap) as producer:
            await producer.send_and_wait(f"{prefix}.audit", b"none of ours")
            await producer.send_and_wait(f"{prefix}.late", b"late")
            await producer.send_and_wait(topic.name, b"second", partition=1)
        found: set[str] = set()
        end = time.monotonic() + SOON
        while not {"late", "second"} <= found and time.monotonic() < end:
            found |= set(bodies(list(await bridge.pull(PROMPT))))
    assert found - {"old"} == {"late", "second"}
    for name in (f"{prefix}.late", f"{prefix}.audit"):
        await topic.service.delete_topic(name)


async def test_an_operator_looks_at_what_comes_next_and_takes_nothing(
    wide_topic: Topic, database: Database
) -> None:
    await wide_topic.fill((f"m{n}" for n in range(10)), partition=2)
    async with opened(wide_topic, database) as bridge:
        await pull_all(bridge, 10)
        fences = await database.fetch("list_offsets", "orders")
        look = bridge.tap(3, {f"{wide_topic.name}/2": 4})
        await look.open()
        found = [*await look.pull(Want(count=2)), *await look.pull(Want()), *await look.pull(Want())]
        await look.release(found)
        await look.close()
        assert await bridge.pull(PROMPT) == []
        assert await database.fetch("list_offsets", "orders") == fences
    assert [d.position.offset for d in found if d.position] == [4, 5, 6]
    assert isinstance(bridge, TappableBridge)


# --- what is handed back ---


async def test_what_is_released_comes_again_in_its_order(topic: Topic, database: Database) -> None:
    await topic.fill(f"m{n}" for n in range(10))
    async with opened(topic, database) as bridge:
        first = await pull_all(bridge, 4, Want(count=4))
        second = await pull_all(bridge, 2, Want(count=2))
        await bridge.settle(stored(first[:2]))
        await bridge.release([*first[2:], *second])
        again = await pull_all(bridge, 8)
    assert [d.position.offset for d in again if d.position] == list(range(2, 10))


async def test_a_resting_bridge_keeps_its_partitions_and_hands_back_what_it_had(
    topic: Topic, database: Database
) -> None:
    await topic.fill(f"m{n}" for n in range(10))
    async with opened(topic, database) as bridge:
        first = await pull_all(bridge, 3, Want(count=3))
        fences = await database.fetch("list_offsets", "orders")
        for _ in range(8):  # longer than a session lasts
            await bridge.rest()
            await asyncio.sleep(0.3)
        await bridge.settle(stored(first))
        rest = await pull_all(bridge, 7)
        assert await database.fetch("list_offsets", "orders") == fences
    assert [d.position.offset for d in rest if d.position] == list(range(3, 10))


async def test_a_member_whose_buffer_stays_full_is_not_put_out_of_the_group(
    topic: Topic, database: Database
) -> None:
    await topic.fill(f"m{n}" for n in range(500))
    short = {"fetch_size": 1, "session_timeout": 0.6, "max_poll_interval": 0.6}
    async with opened(topic, database, **short) as bridge:
        first = await pull_all(bridge, 1, Want(count=1))
        await asyncio.sleep(2)
        rest = await pull_all(bridge, 499)
        (row,) = await database.fetch("list_offsets", "orders")
    offsets = [d.position.offset for d in [*first, *rest] if d.position]
    assert offsets == list(range(500))
    assert row["fence"] == 1


# --- records that are gone ---


async def test_records_that_retention_took_before_they_were_read_hold_the_bridge_with_their_range(
    topic: Topic, database: Database
) -> None:
    await topic.fill(f"m{n}" for n in range(10))
    await stored_up_to(database, topic, 3)
    await topic.service.delete_records(topic.name, 0, before=7)
    async with opened(topic, database) as bridge:
        with pytest.raises(Misconfigured) as held:
            await pull_all(bridge, 1)
    place = f"{topic.name}/0"
    assert f"{place} was read up to offset 3, but begins at 7: 4 offsets are missing, 3 to 6" in str(
        held.value
    )
    assert "on_gap" in held.value.hint
    assert await kept(database) == {place: 3}


async def test_a_gap_is_passed_over_where_that_is_wanted(topic: Topic, database: Database) -> None:
    await topic.fill(f"m{n}" for n in range(10))
    await stored_up_to(database, topic, 3)
    await topic.service.delete_records(topic.name, 0, before=7)
    intake = topic.intake(database, on_gap="skip")
    async with running(intake):
        await until(lambda: _is_kept(database, topic, 10), "the rest is stored")
    assert intake.counts.stored == 3


async def test_a_topic_that_was_made_anew_holds_the_bridge_or_is_read_from_its_start(
    topic: Topic, database: Database
) -> None:
    await stored_up_to(database, topic, 30)
    await topic.fill(f"m{n}" for n in range(5))
    async with opened(topic, database) as bridge:
        with pytest.raises(Misconfigured, match="up to offset 30, but ends at 5: the topic was made anew"):
            await pull_all(bridge, 1)
    intake = topic.intake(database, on_gap="skip")
    async with running(intake):
        await until(lambda: _is_kept(database, topic, 5), "the new records are stored")
    assert intake.counts.stored == 5


async def test_records_that_vanish_while_it_rests_are_not_jumped_over(
    topic: Topic, database: Database
) -> None:
    await topic.fill(f"m{n}" for n in range(10))
    bridge = topic.bridge(database)
    await bridge.open()
    first = await pull_all(bridge, 2, Want(count=2))
    await bridge.settle(stored(first))
    await bridge.rest()
    await topic.service.delete_records(topic.name, 0, before=6)
    with pytest.raises(Disconnected, match=f"gone: {topic.name}/0 at 2"):
        await pull_until_error(bridge)
    await bridge.open()  # as the framework does
    with pytest.raises(Misconfigured, match="0 to 5"):
        await pull_until_error(bridge)
    await bridge.close()


async def stored_up_to(database: Database, topic: Topic, offset: int) -> None:
    name = f"{topic.name}/0"
    (row,) = await database.fetch("take_offsets", "orders", [name])
    await database.fetch("begin_offsets", "orders", [name], [row["fence"]], [offset])


async def _is_kept(database: Database, topic: Topic, offset: int) -> bool:
    return (await kept(database)).get(f"{topic.name}/0") == offset


async def test_a_damaged_record_holds_the_bridge(topic: Topic, database: Database) -> None:
    for body in (b"whole", b"damaged", b"behind"):
        await topic.send(body)
    try:
        segment = topic.service.segment(topic.name, 0)
    except NotOurs as reason:
        pytest.skip(str(reason))
    segment.write_bytes(segment.read_bytes().replace(b"damaged", b"demaged"))
    async with opened(topic, database) as bridge:
        with pytest.raises(Misconfigured, match=r"is damaged.*Invalid CRC.*partition=0") as held:
            await pull_until_error(bridge)
    assert "delete its records up to there" in held.value.hint
    assert await kept(database) == {f"{topic.name}/0": 0}


# --- brokers and topics that go away ---


async def test_a_broker_that_has_fallen_silent_is_noticed(topic: Topic, database: Database) -> None:
    await topic.send()
    async with opened(topic, database, session_timeout=0.7) as bridge:
        await pull_all(bridge, 1)
        topic.service.suspend()
        try:
            with pytest.raises(Disconnected, match=r"no broker has answered for 0\.7 s"):
                await pull_until_error(bridge)
        finally:
            topic.service.resume()


async def test_a_topic_that_was_deleted_is_noticed(topic: Topic, database: Database) -> None:
    async with topic_on(topic.service) as doomed:
        await doomed.send()
        bridge = doomed.bridge(database, session_timeout=0.7)
        await bridge.open()
        await pull_all(bridge, 1)
    with pytest.raises(Disconnected):
        await pull_until_error(bridge)
    with pytest.raises(Misconfigured, match=f"there is no topic {doomed.name}"):
        await bridge.open()
    await bridge.close()


async def test_it_wants_offsets_to_be_kept(topic: Topic) -> None:
    with pytest.raises(Misconfigured, match="keeps its offsets in Postgres"):
        await KafkaBridge("orders", topic.options()).open()


# --- a member that has a name ---


async def test_a_named_member_that_comes_back_has_its_partitions_without_a_rebalance_of_others(
    wide_topic: Topic, database: Database
) -> None:
    named = {"instance_id": "one", "session_timeout": 6}
    async with opened(wide_topic, database, **named) as bridge:
        await bridge.pull(PROMPT)
        async with opened(wide_topic, database, **{**named, "instance_id": "two"}) as other:
            await until(lambda: _shared(bridge, other), "both have partitions")
            generation = session_of(other).generation
            await bridge.close()
            await bridge.open()
            await until(lambda: _shared(bridge, other), "both have partitions again")
            assert session_of(other).generation == generation


async def _shared(*bridges: KafkaBridge) -> bool:
    for bridge in bridges:
        await bridge.pull(Want(wait=timedelta(milliseconds=50)))
    return all(len(session_of(bridge).assigned) == 2 for bridge in bridges)


def session_of(bridge: KafkaBridge) -> Session:
    session = bridge._session
    assert session is not None
    return session


# --- transactions ---


async def test_aborted_transactions_are_not_read_and_their_marks_are_no_lag(
    topic: Topic, database: Database
) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=topic.service.bootstrap, transactional_id=topic.name
    ) as producer:
        async with producer.transaction():
            await producer.send(topic.name, b'{"id": "good"}')
        await producer.begin_transaction()
        await producer.send_and_wait(topic.name, b'{"id": "bad"}')
        await producer.abort_transaction()
    intake = topic.intake(database)
    async with running(intake):
        # A record, its mark, a record that was taken back, its mark.
        await until(lambda: _is_kept(database, topic, 4), "the marks are passed")
        assert await intake.bridge.lag() == 0
    assert intake.counts.stored == 1
    await topic.service.delete_records(topic.name, 0, before=4)
    async with opened(topic, database) as bridge:
        assert await bridge.pull(PROMPT) == []
