"""Looking at a bridge's messages takes none of them; an operator lets a log go on elsewhere."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from hammerwork.core import operate
from hammerwork.core.errors import Misconfigured, NotFound, StateConflict, Unavailable
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake
from hammerwork.core.ingest.mapping import CallableMapping, FieldMapping, Mapper
from hammerwork.core.ingest.preparation import Preparation
from hammerwork.core.ingest.tap import look_at, tap
from hammerwork.core.job import Job, Json, Priority
from hammerwork.core.message import Bridge, Delivery, Look, Message, Want
from hammerwork.core.postgres.database import Database
from hammerwork.core.postgres.store import job_of, row_of
from hammerwork.core.retry import Exponential

from .memory_log import LogMember, MemoryLog
from .running import running, until

SHORT = timedelta(milliseconds=50)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with Database(dsn) as database:
        yield database


def preparation(mapper: Mapper | None = None) -> Preparation:
    return Preparation("orders", Decoder(), mapper or FieldMapping("work"))


class Hands:
    """Shows the messages of one partition from where it is told to; notes what it was asked to do."""

    def __init__(self, log: MemoryLog, start: int = 0) -> None:
        self.asked: Counter[str] = Counter()
        self.released: list[Delivery] = []
        self._messages = log.partitions["a"][start:]

    async def open(self) -> None:
        self.asked["open"] += 1

    async def pull(self, want: Want) -> Sequence[Delivery]:
        taken = [Delivery(self._messages.pop(0)) for _ in range(min(want.count, len(self._messages)))]
        if not taken:
            await asyncio.sleep(want.wait.total_seconds())
        return taken

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        self.released += deliveries

    async def close(self) -> None:
        self.asked["close"] += 1


class Shown(LogMember):
    """A log that may be looked at."""

    def tap(self, most: int, kept: Mapping[str, int | None]) -> Look:
        return Hands(self._log, kept["a"] or 0)


class Plain:
    """A bridge that says nothing about being looked at."""

    name = "plain"


# --- looking -------------------------------------------------------------------------------------


async def test_all_that_was_looked_at_is_given_back() -> None:
    log = MemoryLog()
    log.write("a", "a0", "a1", "a2")
    hands = Hands(log)
    items = await tap(hands, preparation(), 2, SHORT)
    assert [item.delivery.message.body for item in items] == [b'{"id": "a0"}', b'{"id": "a1"}']
    assert all(item.row is not None for item in items)
    assert hands.released == [item.delivery for item in items]
    assert hands.asked == {"open": 1, "close": 1}


async def test_it_ends_when_nothing_comes_for_as_long_as_it_waits() -> None:
    hands = Hands(MemoryLog())
    assert await tap(hands, preparation(), 5, SHORT) == []
    assert hands.asked == {"open": 1, "close": 1}


async def test_messages_go_back_also_when_the_world_is_in_the_way_of_mapping_them() -> None:
    log = MemoryLog()
    log.write("a", "a0")
    hands = Hands(log)

    def asks(_: Message, __: Json) -> Json:
        raise Unavailable("the registry is away")

    with pytest.raises(Unavailable, match="registry"):
        await tap(hands, preparation(CallableMapping(asks, FieldMapping("work"))), 1, SHORT)
    assert len(hands.released) == 1
    assert hands.asked == {"open": 1, "close": 1}


async def test_a_log_is_looked_at_from_where_the_gateway_stands() -> None:
    log = MemoryLog()
    log.write("a", "a0", "a1", "a2")
    look = look_at(Shown(log, "a"), 5, {"a": 2})
    [item] = await tap(look, preparation(), 5, SHORT)
    assert item.delivery.message.body == b'{"id": "a2"}'


def test_a_log_that_does_not_say_how_is_not_looked_at_and_another_bridge_is_as_it_is() -> None:
    with pytest.raises(Misconfigured, match="without taking its partitions"):
        look_at(LogMember(MemoryLog()), 5, {})
    plain: Bridge = Plain()  # type: ignore[assignment]
    assert look_at(plain, 5, {}) is plain


def test_a_job_is_read_back_from_its_row() -> None:
    job = Job(
        "orders", {"a": [1, "ä", None]}, priority=Priority.HIGH, run_at=datetime.now(UTC), max_attempts=3,
        timeout=timedelta(seconds=5), retry=Exponential(base=timedelta(seconds=2)), correlation_id="c",
        traceparent="t", tracestate="s", headers={"h": 1}, origin={"bridge": "b"},
    )  # fmt: skip
    assert job_of(row_of(job)) == job
    plain = Job("orders", delay=timedelta(seconds=1))
    assert job_of(row_of(plain)) == plain


# --- going on elsewhere --------------------------------------------------------------------------


async def read(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch("select payload->>'id' as id from hammerwork.jobs order by id")
    return [row["id"] for row in rows]


async def test_a_gateway_that_runs_goes_on_where_the_operator_says_although_nothing_new_comes(
    database: Database, connection: asyncpg.Connection
) -> None:
    log = MemoryLog()
    log.write("a", "a0", "a1", "a2")
    intake = Intake(database, LogMember(log, "a"), Decoder(), FieldMapping("work"))

    async def stored(*ids: str) -> None:
        async def all_of_them() -> bool:
            return await read(connection) == sorted(ids)

        await until(all_of_them)

    async with running(intake):
        await stored("a0", "a1", "a2")
        with pytest.raises(StateConflict, match="not paused"):
            await operate.seek_bridge(database, "log", "a", 1)
        await operate.pause_bridge(database, "log")

        async def rests() -> bool:
            return intake.status.state == "paused"

        await until(rests)
        assert await operate.seek_bridge(database, "log", "a", 1) == 3
        await operate.resume_bridge(database, "log")
        await stored("a0", "a1", "a1", "a2", "a2")
        [kept] = await operate.bridge_offsets(database, "log")
        assert kept.next_offset == 3


async def test_only_partitions_that_were_read_can_be_moved(database: Database) -> None:
    for act in (operate.seek_bridge(database, "log", "a", 1), operate.bridge_offsets(database, "log")):
        with pytest.raises(NotFound, match="no gateway has opened"):
            await act
    await database.fetch("register_bridge", "log", "memory", timedelta(days=1))
    assert await operate.bridge_offsets(database, "log") == []
    await database.fetch("take_offsets", "log", ["a"])
    await operate.pause_bridge(database, "log")
    with pytest.raises(NotFound, match="there are: a"):
        await operate.seek_bridge(database, "log", "b", 1)
    with pytest.raises(Misconfigured, match="0 or more"):
        await operate.seek_bridge(database, "log", "a", -1)
    assert await operate.seek_bridge(database, "log", "a", 5) is None
