"""Logs: offsets move in the jobs' transaction, and whoever owned a partition before stores nothing more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import asyncpg
import pytest

from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake, IntakeLimits
from hammerwork.core.ingest.item import Item
from hammerwork.core.ingest.mapping import CallableMapping, FieldMapping, Mapper
from hammerwork.core.ingest.offsets import KeptOffsets, Move
from hammerwork.core.ingest.preparation import Tombstones
from hammerwork.core.job import Json
from hammerwork.core.message import Delivery, Fate, Message, Position
from hammerwork.core.postgres.database import Database

from ..services.postgres import PostgresService
from ..services.proxy import FaultProxy
from .memory_log import LogMember, MemoryLog
from .running import before, running, until


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with Database(dsn) as database:
        yield database


def intake_of(
    database: Database,
    member: LogMember,
    mapper: Mapper | None = None,
    *,
    tombstones: Tombstones = "skip",
) -> Intake:
    limits = IntakeLimits(tombstones=tombstones)
    return Intake(database, member, Decoder(), mapper or FieldMapping("work"), limits)


async def stored(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch("select payload->>'id' as id from hammerwork.jobs order by id")
    return [row["id"] for row in rows]


async def offset(connection: asyncpg.Connection, partition: str = "a") -> int | None:
    query = "select next_offset from hammerwork.bridge_offsets where partition = $1"
    found: int | None = await connection.fetchval(query, partition)
    return found


async def until_offset(connection: asyncpg.Connection, wanted: int, partition: str = "a") -> None:
    async def reached() -> bool:
        return await offset(connection, partition) == wanted

    await until(reached)


async def until_waiting(connection: asyncpg.Connection, query: str) -> None:
    """Until somebody waits for a lock with a statement that contains this."""

    async def waits() -> bool:
        await connection.execute("select pg_stat_clear_snapshot()")
        return bool(
            await connection.fetchval(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like $1",
                f"%{query}%",
            )
        )

    await until(waits)


async def until_pulled(member: LogMember, *places: tuple[str, int]) -> None:
    async def pulled() -> bool:
        return set(places) <= set(member.pulled)

    await until(pulled)


async def test_another_goes_on_where_one_stopped(database: Database, connection: asyncpg.Connection) -> None:
    log = MemoryLog()
    log.write("a", "a0", "a1", "a2")
    log.write("b", "b0")
    async with running(intake_of(database, LogMember(log, "a", "b"))):
        await until_offset(connection, 3)
        await until_offset(connection, 1, "b")
    log.write("a", "a3")
    member = LogMember(log, "a", "b")
    async with running(intake_of(database, member)):
        await until_offset(connection, 4)
    assert member.pulled == [("a", 3)]
    assert sorted(await stored(connection)) == ["a0", "a1", "a2", "a3", "b0"]


async def test_a_member_that_slept_through_its_eviction_stores_nothing_and_joins_anew(
    database: Database, connection: asyncpg.Connection
) -> None:
    log = MemoryLog()
    log.write("a", "a0", "a1", "a2")
    asleep, wake = asyncio.Event(), asyncio.Event()

    async def dozes(_: Message, body: Json) -> Json:
        if body["id"] == "a0" and not asleep.is_set():
            asleep.set()
            await wake.wait()
        return body

    zombie = LogMember(log, "a")
    async with running(intake_of(database, zombie, CallableMapping(dozes, FieldMapping("work")))):
        await before(asleep)
        heir = LogMember(log, "a")
        async with running(intake_of(database, heir)):
            await until_offset(connection, 3)
        wake.set()

        async def opened_anew() -> bool:
            return zombie.opened == 2

        await until(opened_anew)
        log.write("a", "a3")
        await until_offset(connection, 4)
    assert await stored(connection) == ["a0", "a1", "a2", "a3"]
    assert [str(r.delivery.message.body) for r in zombie.settled if r.fate is Fate.STORED] == [
        str(b'{"id": "a3"}')
    ]


async def test_who_takes_a_partition_waits_for_the_transaction_that_is_moving_it(
    database: Database, connection: asyncpg.Connection, dsn: str
) -> None:
    log = MemoryLog()
    log.write("a", "a0", "a1", "a2")
    first, heir = LogMember(log, "a"), LogMember(log, "a")
    async with running(intake_of(database, first)):
        held_up = connection.transaction()
        await held_up.start()
        await connection.execute("lock table hammerwork.jobs in exclusive mode")
        await until_pulled(first, ("a", 2))
        async with running(intake_of(database, heir)):
            await until_waiting(connection, "insert into hammerwork.bridge_offsets")
            assert heir.pulled == []
            await held_up.rollback()
            log.write("a", "a3")
            await until_offset(connection, 4)
    assert await stored(connection) == ["a0", "a1", "a2", "a3"]
    assert ("a", 0) not in heir.pulled


async def test_what_is_in_hand_of_a_partition_that_comes_back_leaves_no_gap(
    database: Database, connection: asyncpg.Connection
) -> None:
    log = MemoryLog()
    log.write("a", *(f"a{n}" for n in range(6)))
    shuffled = asyncio.Event()

    async def shuffles(_: Message, body: Json) -> Json:
        if not shuffled.is_set():
            shuffled.set()
            member.assign("a")
            await member.take()
        return body

    member = LogMember(log, "a")
    async with running(intake_of(database, member, CallableMapping(shuffles, FieldMapping("work")))):
        await before(shuffled)
        await until_offset(connection, 6)
    assert await stored(connection) == [f"a{n}" for n in range(6)]


async def test_what_was_pulled_under_a_fence_of_before_moves_nothing(database: Database) -> None:
    offsets = KeptOffsets(database, "log")
    delivery = Delivery(Message(body=b""), position=Position("a", 3))
    item = Item(delivery)
    assert await offsets.take(["a"]) == {"a": None}
    assert offsets.fenced([delivery]) == ([], [])
    await offsets.begin({"a": 3})
    ours, (item.fence,) = offsets.fenced([delivery])
    assert ours == [delivery]
    assert offsets.moves([item]) == [Move("a", 1, 3, 4)]
    assert await offsets.take(["a"]) == {"a": 3}
    assert offsets.moves([item]) == []


async def test_who_takes_a_partition_owns_it_although_nothing_has_moved_yet(
    database: Database, connection: asyncpg.Connection
) -> None:
    log = MemoryLog()
    log.write("a", "a0")
    robbed = asyncio.Event()

    async def robs(_: Message, body: Json) -> Json:
        if not robbed.is_set():
            robbed.set()
            await database.fetch("take_offsets", "log", ["a"])
        return body

    member = LogMember(log, "a")
    async with running(intake_of(database, member, CallableMapping(robs, FieldMapping("work")))):
        await until_offset(connection, 1)
    assert member.opened == 2
    assert await stored(connection) == ["a0"]


async def test_a_partition_that_stays_with_its_new_owner_does_not_end_every_connection_after(
    database: Database, connection: asyncpg.Connection
) -> None:
    log = MemoryLog()
    log.write("a", "a0")
    log.write("b", "b0")
    member = LogMember(log, "a", "b")

    async def robs(message: Message, body: Json) -> Json:
        if message.key == "a":
            await database.fetch("take_offsets", "log", ["a"])
            member._assigned = ["b"]  # the group has given `a` to another member for good
        return body

    async with running(intake_of(database, member, CallableMapping(robs, FieldMapping("work")))):
        for end in range(1, 4):
            await until_offset(connection, end, "b")
            log.write("b", f"b{end}")
        await until_offset(connection, 4, "b")
    assert member.opened == 2
    assert await stored(connection) == ["b0", "b1", "b2", "b3"]


async def test_a_batch_whose_commit_is_cut_is_stored_once(
    postgres_service: PostgresService, connection: asyncpg.Connection, dsn: str
) -> None:
    log = MemoryLog()
    log.write("a", "a0", "a1")
    async with FaultProxy(*postgres_service.address) as proxy:
        url = postgres_service.dsn(dsn.rpartition("/")[2].partition("?")[0], port=proxy.port)
        member = LogMember(log, "a")
        async with Database(url) as fragile, running(intake_of(fragile, member)):
            await until_offset(connection, 2)
            proxy.cut()  # it would take the COMMIT of before for this one
            tripped = proxy.cut_after(b"COMMIT")
            log.write("a", "a2", "a3")
            await before(tripped)
            log.write("a", "a4")
            await until_offset(connection, 5)
    assert member.opened == 1
    assert await stored(connection) == ["a0", "a1", "a2", "a3", "a4"]


async def test_a_record_below_the_offset_is_not_stored_again(
    database: Database, connection: asyncpg.Connection
) -> None:
    log = MemoryLog()
    log.write("a", "a0", "a1", "a2")
    member = LogMember(log, "a")
    async with running(intake_of(database, member)):
        await until_offset(connection, 3)
        member._next["a"] = 0
        await until_pulled(member, ("a", 2))
        log.write("a", "a3")
        await until_offset(connection, 4)
    assert await stored(connection) == ["a0", "a1", "a2", "a3"]


async def test_a_bad_record_is_buried_where_its_offset_moves(
    database: Database, connection: asyncpg.Connection
) -> None:
    log = MemoryLog()
    log.partitions["a"] += [Message(body=b"{"), Message(body=b'{"id": "a1"}')]
    async with running(intake_of(database, LogMember(log, "a"))):
        await until_offset(connection, 2)
    assert await stored(connection) == ["a1"]
    assert await connection.fetchval("select count(*) from hammerwork.dead_letters") == 1


async def test_what_a_tombstone_does_is_the_operators_choice(
    database: Database, connection: asyncpg.Connection
) -> None:
    log = MemoryLog()
    log.write("a", "a0", "a1")
    log.delete("a", "a")
    log.delete("a", "nobody's")
    for choice in ("skip", "cancel", "enqueue"):
        member = LogMember(log, "a", name=choice)
        async with running(intake_of(database, member, FieldMapping(choice), tombstones=choice)):

            async def done(name: str = choice) -> bool:
                query = "select next_offset = 4 from hammerwork.bridge_offsets where bridge = $1"
                return bool(await connection.fetchval(query, name))

            await until(done)
    live = await connection.fetch(
        "select queue, coalesce(payload->>'id', 'null') as id from hammerwork.jobs order by queue, id"
    )
    assert [(row["queue"], row["id"]) for row in live] == [
        ("cancel", "a0"),  # a1 was the latest of its key
        ("enqueue", "a0"),
        ("enqueue", "a1"),
        ("enqueue", "null"),
        ("enqueue", "null"),
        ("skip", "a0"),
        ("skip", "a1"),
    ]
    (gone,) = await connection.fetch("select state, error, payload->>'id' as id from hammerwork.history")
    assert (gone["state"], gone["id"]) == ("cancelled", "a1")
    assert "deleted at the source" in gone["error"]


async def test_a_key_that_is_written_again_after_its_tombstone_lives(
    database: Database, connection: asyncpg.Connection
) -> None:
    log = MemoryLog()
    log.write("a", "a0")
    log.delete("a", "a")
    remembered = "select count(*) from hammerwork.bridge_keys"
    async with running(intake_of(database, LogMember(log, "a"), tombstones="cancel")):
        await until_offset(connection, 2)
        assert await connection.fetchval(remembered) == 0
        log.write("a", "a1")
        await until_offset(connection, 3)
        assert await stored(connection) == ["a1"]
        log.delete("a", "a")
        await until_offset(connection, 4)
    assert await stored(connection) == []
    assert await connection.fetchval(remembered) == 0


async def test_a_key_that_died_with_the_job_after_it_is_forgotten(
    database: Database, connection: asyncpg.Connection
) -> None:
    log = MemoryLog()
    log.write("a", "a0")
    async with running(intake_of(database, LogMember(log, "a"), tombstones="cancel")):
        await until_offset(connection, 1)
        log.write("a", "a1")
        log.delete("a", "a")  # one batch: a1 is the latest of its key, and ends
        await until_offset(connection, 3)
        assert await connection.fetchval("select count(*) from hammerwork.bridge_keys") == 0
        log.delete("a", "a")
        await until_offset(connection, 4)
    assert await stored(connection) == ["a0"]


@pytest.mark.parametrize("key", ["\0\1", "\ud800", random.Random(0).randbytes(3000).hex()])
async def test_a_key_that_postgres_could_not_hold_is_followed_all_the_same(
    database: Database, connection: asyncpg.Connection, key: str
) -> None:
    log = MemoryLog()
    log.partitions["a"] += [Message(body=b'{"id": "a0"}', key=key), Message(body=b'{"id": "a1"}', key="k")]
    async with running(intake_of(database, LogMember(log, "a"), tombstones="cancel")):
        await until_offset(connection, 2)
        assert await stored(connection) == ["a0", "a1"]
        log.delete("a", key)
        await until_offset(connection, 3)
    assert await stored(connection) == ["a1"]
    assert await connection.fetchval("select count(*) from hammerwork.dead_letters") == 0
