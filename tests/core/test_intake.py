"""The intake between a broker and Postgres: one batch is stored, the next is pulled, and both are owed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest

from hammerwork.core.errors import Disconnected, Misconfigured, Unavailable
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake, IntakeLimits
from hammerwork.core.ingest.mapping import CallableMapping, FieldMapping, Mapper
from hammerwork.core.job import Job, Json
from hammerwork.core.message import Delivery, Guarantee, Message, Receipt, Want
from hammerwork.core.postgres.database import Database
from hammerwork.core.postgres.store import COPY_FROM

from .running import running, until

INTAKE = "intake under test"


class ScriptedBroker:
    """A Bridge whose pulls are written down beforehand, and that writes down what is asked of it."""

    name = "orders"

    def __init__(self, *pulls: Sequence[str] | BaseException) -> None:
        self._pulls = deque(pulls)
        self.wanted: Want | None = None
        """The latest pull that may wait."""
        self.attempt: int | None = None
        self.opened = 0
        self.pulled: list[str] = []
        self.settled: list[str] = []
        self.released: list[str] = []

    async def open(self) -> None:
        self.opened += 1

    def push(self, *pulls: Sequence[str]) -> None:
        self.wanted = None
        self._pulls.extend(pulls)

    async def pull(self, want: Want) -> Sequence[Delivery]:
        if not self._pulls:
            self.wanted = want if want.wait else self.wanted
            await asyncio.sleep(min(0.01, want.wait.total_seconds()))
            return []
        match self._pulls.popleft():
            case BaseException() as error:
                raise error
            case ids:
                self.pulled += ids
                return [
                    Delivery(Message(body=b'{"id": "%s"}' % i.encode(), id=i, attempt=self.attempt))
                    for i in ids
                ]

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        self.settled += [str(receipt.delivery.message.id) for receipt in receipts]

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        self.released += [str(delivery.message.id) for delivery in deliveries]

    async def rest(self) -> None:
        return

    async def lag(self) -> int | None:
        return None

    async def close(self) -> None:
        return

    async def guarantee(self) -> Guarantee:
        return Guarantee("exactly-once in effect", "every message has an id")


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with Database(dsn, application_name=INTAKE) as database:
        yield database


def intake_of(database: Database, broker: ScriptedBroker, mapper: Mapper | None = None) -> Intake:
    return Intake(database, broker, Decoder(), mapper or FieldMapping("work"))


@asynccontextmanager
async def held_up(connection: asyncpg.Connection) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A block in which no transaction gets past the inbox, until what it gives is called. It begins before
    the intake does, which else may have stored a batch already."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(connection.transaction())
        await connection.execute("lock table hammerwork.inbox in exclusive mode")
        yield stack.aclose


async def stored(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch("select payload->>'id' as id from hammerwork.jobs order by run_at, id")
    return [row["id"] for row in rows]


async def has_pulled(broker: ScriptedBroker, count: int) -> None:
    async def reached() -> bool:
        return len(broker.pulled) >= count

    await until(reached)


async def has_settled(broker: ScriptedBroker, count: int) -> None:
    async def reached() -> bool:
        return len(broker.settled) >= count

    await until(reached)


async def test_one_batch_is_pulled_while_another_is_stored_and_no_more(
    database: Database, connection: asyncpg.Connection
) -> None:
    broker = ScriptedBroker(["a", "b"], ["c"], ["d", "e"])
    async with held_up(connection) as let_go, running(intake_of(database, broker)):
        await has_pulled(broker, 3)
        for _ in range(100):
            await asyncio.sleep(0)
        assert broker.pulled == ["a", "b", "c"]
        assert broker.settled == []
        await let_go()
        await has_settled(broker, 5)
    assert broker.settled == broker.pulled == ["a", "b", "c", "d", "e"]
    assert sorted(await stored(connection)) == ["a", "b", "c", "d", "e"]
    assert broker.released == []


async def test_stopping_stores_and_settles_the_batch_that_was_pulled_ahead(
    database: Database, connection: asyncpg.Connection
) -> None:
    broker = ScriptedBroker(["a"], ["b"], ["c"])
    intake = intake_of(database, broker)
    async with held_up(connection) as let_go, running(intake) as task:
        await has_pulled(broker, 2)
        intake.stop()
        await let_go()
        await task
    assert broker.settled == broker.pulled == ["a", "b"]
    assert sorted(await stored(connection)) == ["a", "b"]
    assert broker.released == []


async def test_both_batches_go_back_when_the_first_cannot_be_stored(
    database: Database, connection: asyncpg.Connection
) -> None:
    broker = ScriptedBroker(["a"], ["b", "c"])
    intake = intake_of(database, broker)
    async with held_up(connection), running(intake) as task:
        await has_pulled(broker, 3)
        intake.stop()  # or it would try again for a while
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1", INTAKE
        )
        await task
    assert broker.released == ["a", "b", "c"]
    assert broker.settled == []
    assert await stored(connection) == []


async def test_a_broker_that_goes_while_a_batch_is_stored_is_told_of_it_all_the_same(
    database: Database, connection: asyncpg.Connection
) -> None:
    broker = ScriptedBroker(["a"], Disconnected("gone"), ["b"])
    async with running(intake_of(database, broker)):
        await has_settled(broker, 2)
    assert broker.opened == 2
    assert broker.settled == ["a", "b"]
    assert broker.released == []


async def test_a_batch_ahead_that_cannot_be_mapped_goes_back_alone(
    database: Database, connection: asyncpg.Connection
) -> None:
    tried: list[str] = []

    def transform(_: Message, body: Json) -> Json:
        tried.append(body["id"])
        if tried == ["a", "b"]:
            raise Unavailable("the price list is away")
        return body

    broker = ScriptedBroker(["a"], ["b"], ["b"])
    async with running(intake_of(database, broker, CallableMapping(transform, FieldMapping("work")))):
        await has_settled(broker, 2)
    assert broker.settled == ["a", "b"]
    assert broker.released == ["b"]
    assert sorted(await stored(connection)) == ["a", "b"]


async def test_a_bridge_that_has_worked_is_opened_again_soon_when_its_broker_calls_it_misconfigured(
    database: Database,
) -> None:
    broker = ScriptedBroker(["a"], Misconfigured("no such queue"), ["b"])
    async with running(intake_of(database, broker)):
        await has_settled(broker, 2)  # sooner than a bridge that never worked is tried again
    assert (broker.opened, broker.settled) == (2, ["a", "b"])


async def test_a_client_that_cancels_its_own_call_ends_the_connection_and_not_the_bridge(
    database: Database,
) -> None:
    broker = ScriptedBroker(asyncio.CancelledError(), ["a"])
    async with running(intake_of(database, broker)):
        await has_settled(broker, 1)
    assert (broker.opened, broker.settled) == (2, ["a"])


async def test_a_transform_that_cancels_itself_makes_a_dead_letter(
    database: Database, connection: asyncpg.Connection
) -> None:
    async def transform(_: Message, body: Json) -> Json:
        if body["id"] == "a":
            raise asyncio.CancelledError
        return body

    broker = ScriptedBroker(["a", "b"])
    async with running(intake_of(database, broker, CallableMapping(transform, FieldMapping("work")))):
        await has_settled(broker, 2)
    assert broker.opened == 1
    assert await stored(connection) == ["b"]
    assert await connection.fetchval("select reason from hammerwork.dead_letters") == "transform_failed"


@pytest.mark.parametrize("count", [3, COPY_FROM])
async def test_a_value_that_postgres_cannot_take_makes_a_dead_letter_and_the_others_go_on(
    database: Database, connection: asyncpg.Connection, count: int
) -> None:
    class Careless:
        """A mapper whose jobs have a value that the checks of a Job have not seen."""

        waits = False

        async def map(self, message: Message, body: Json, bridge: str) -> Job:
            job = Job("work", body)
            if body["id"] == "1":
                object.__setattr__(job, "result_ttl", 5)
            return job

    ids = [str(number) for number in range(count)]
    broker = ScriptedBroker(ids)
    async with running(intake_of(database, broker, Careless())):
        await has_settled(broker, count)
    assert broker.opened == 1
    assert sorted(await stored(connection)) == sorted(ids[:1] + ids[2:])
    assert await connection.fetchval("select reason from hammerwork.dead_letters") == "refused_by_postgres"


async def test_a_dead_letter_is_kept_whatever_its_broker_counted(
    database: Database, connection: asyncpg.Connection
) -> None:
    broker = ScriptedBroker(["a", "b"])
    broker.attempt = 2**40
    intake = Intake(database, broker, Decoder(), FieldMapping("work"), IntakeLimits(max_deliveries=5))
    async with running(intake):
        await has_settled(broker, 2)
    assert broker.opened == 1
    rows = await connection.fetch("select reason, attempts from hammerwork.dead_letters")
    assert [tuple(row) for row in rows] == [("too_many_deliveries", 2**31 - 1)] * 2


async def test_only_a_message_in_company_waits_for_more(database: Database) -> None:
    broker = ScriptedBroker()

    async def linger_after(settled: int) -> timedelta:
        async def idle() -> bool:
            return len(broker.settled) == settled and broker.wanted is not None

        await until(idle)
        assert broker.wanted is not None
        return broker.wanted.linger

    async with running(intake_of(database, broker)):
        assert await linger_after(0) == timedelta(0)
        broker.push(["a"])
        assert await linger_after(1) == timedelta(0)
        broker.push(["b", "c"])
        assert await linger_after(3) > timedelta(0)
        broker.push(["d"])
        assert await linger_after(4) == timedelta(0)
