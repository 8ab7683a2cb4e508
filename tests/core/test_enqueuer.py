"""Many jobs by COPY, single ones together: the same answers, order and events as one by one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from hammerwork.core import enqueuer
from hammerwork.core.enqueuer import COPY_BATCH, FLIGHTS, Enqueuer, _rows
from hammerwork.core.errors import Misconfigured, Unavailable
from hammerwork.core.identity import new_id
from hammerwork.core.job import Job, JobState
from hammerwork.core.postgres import database, store
from hammerwork.core.postgres.database import Database
from hammerwork.core.postgres.store import COPY_FROM
from hammerwork.core.queue import Enqueued, Queue

from ..claiming import claim
from ..services import free_port
from .running import both_servers, until
from .test_queue import jobs_stored

MANY = 2 * COPY_FROM


async def statements(connection: asyncpg.Connection) -> int:
    """How many statements have stored jobs: each left its transaction's id in them."""
    return int(await connection.fetchval("select count(distinct xmin::text) from hammerwork.jobs"))


# --- many, by COPY --------------------------------------------------------------------------------


@both_servers
async def test_an_id_that_exists_is_told_and_the_others_are_stored(queue: Queue) -> None:
    jobs = [Job("orders", n) for n in range(MANY)]
    await queue.enqueue(jobs[7])
    answers = await queue.enqueue_many(jobs)
    assert answers == [Enqueued.DUPLICATE if n == 7 else Enqueued.STORED for n in range(MANY)]
    assert await jobs_stored(queue) == MANY


async def test_an_id_that_occurs_twice_is_stored_once(queue: Queue) -> None:
    jobs = [Job("orders", n) for n in range(MANY)]
    answers = await queue.enqueue_many([*jobs, jobs[-1]])
    assert answers == [Enqueued.STORED] * MANY + [Enqueued.DUPLICATE]


@both_servers
async def test_many_are_claimed_in_the_order_in_which_they_were_given(
    queue: Queue, worker: Any, connection: asyncpg.Connection
) -> None:
    await queue.enqueue_many([Job("orders", n) for n in range(MANY)])
    rows = await claim(queue.database, "orders", worker, MANY)
    assert [int(row["payload"]) for row in rows] == list(range(MANY))


async def test_many_are_claimed_as_they_were_given_however_their_ids_sort(queue: Queue, worker: Any) -> None:
    jobs = [Job("orders", n) for n in range(MANY)]
    await queue.enqueue_many(jobs[::-1])
    rows = await claim(queue.database, "orders", worker, MANY)
    assert [row["id"] for row in rows] == [job.id for job in jobs[::-1]]


@pytest.mark.parametrize("count", [1, COPY_FROM])
async def test_an_index_of_the_operators_own_refuses_and_nobody_waits(own_queue: Queue, count: int) -> None:
    async with own_queue.database.acquire() as connection:
        await connection.execute("create unique index on hammerwork.jobs ((payload->>'key'))")
    await own_queue.enqueue(Job("orders", {"key": "a"}))
    jobs = [Job("orders", {"key": "a" if n == 0 else str(n)}) for n in range(count)]
    async with asyncio.timeout(5):
        with pytest.raises(asyncpg.UniqueViolationError):
            await own_queue.enqueue_many(jobs)
        with pytest.raises(asyncpg.UniqueViolationError):
            await own_queue.enqueue(jobs[0])
    assert await jobs_stored(own_queue) == 1


async def test_many_with_a_time_of_their_own_wait_for_it(queue: Queue) -> None:
    later = Job("orders", delay=timedelta(hours=1))
    await queue.enqueue_many([*(Job("orders", n) for n in range(MANY)), later])
    assert (await queue.get(later.id)).state is JobState.SCHEDULED
    assert await jobs_stored(queue) == MANY + 1


@both_servers
@pytest.mark.parametrize("wanted", [True, False])
async def test_the_events_of_many_are_written_if_a_sink_wants_them(
    queue: Queue, connection: asyncpg.Connection, wanted: bool
) -> None:
    await queue.database.fetch("register_sink", "hook", "webhook", ["job.enqueued" if wanted else "job.dead"])
    jobs = [Job("orders", n, correlation_id=f"c{n}") for n in range(MANY)]
    await queue.enqueue_many(jobs)
    events = await connection.fetch(
        "select job_id, sequence, type, queue, data from hammerwork.events order by id"
    )
    assert [event["job_id"] for event in events] == ([job.id for job in jobs] if wanted else [])
    assert {(event["sequence"], event["type"], event["queue"]) for event in events} <= {
        (1, "job.enqueued", "orders")
    }


async def test_every_column_of_a_job_survives_a_copy(queue: Queue) -> None:
    given = Job("orders", {"a": 1}, max_attempts=9, timeout=timedelta(seconds=3), correlation_id="c",
                headers={"h": [1]}, origin={"bridge": "b"}, result_ttl=timedelta(hours=2))  # fmt: skip
    await queue.enqueue_many([given, *(Job("orders") for _ in range(MANY))])
    stored = await queue.get(given.id)
    assert (stored.payload, stored.max_attempts, stored.correlation_id) == ({"a": 1}, 9, "c")
    assert (stored.headers, stored.origin) == ({"h": [1]}, {"bridge": "b"})


async def test_many_go_by_few_copies_and_are_claimed_in_their_order(
    queue: Queue, worker: Any, connection: asyncpg.Connection
) -> None:
    jobs = [Job("orders", n) for n in range(COPY_BATCH + MANY)]
    assert await queue.enqueue_many(jobs) == [Enqueued.STORED] * len(jobs)
    assert await statements(connection) == 2
    rows = await claim(queue.database, "orders", worker, len(jobs))
    assert [row["id"] for row in rows] == [job.id for job in jobs]


@pytest.mark.parametrize("delay", [None, timedelta(hours=1)])
async def test_a_transaction_ends_when_it_has_taken_enough(
    queue: Queue, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, delay: timedelta | None
) -> None:
    monkeypatch.setattr(enqueuer, "MOST", 64 * 1024)
    jobs = [Job("orders", "x" * 1024, delay=delay) for _ in range(400)]
    assert await queue.enqueue_many(jobs) == [Enqueued.STORED] * len(jobs)
    assert await jobs_stored(queue) == len(jobs)
    assert await statements(connection) == 7


async def test_others_have_their_turn_while_the_rows_of_a_copy_are_made(queue: Queue) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(others())
    rows = [row async for row in _rows([Job("orders", "x" * 150) for _ in range(COPY_BATCH)], set())]
    counting.cancel()
    assert len(rows) == COPY_BATCH
    assert turns >= COPY_BATCH / 300


FAR = 3000
"""Jobs whose rows are more than the driver sends in one piece: Postgres has seen the first of them."""


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("fields", [{"correlation_id": 5}, {"result_ttl": 5}])
async def test_a_refused_job_far_behind_is_told_at_once_and_nothing_of_its_transaction_stored(
    dsn: str, fields: dict[str, Any], exists: bool
) -> None:
    """Also where Postgres has refused the COPY by then, for an id that exists; on the only connection."""
    jobs = [*(Job("orders", "x" * 250) for _ in range(FAR)), odd(**fields)]
    async with Queue(dsn, connections=1) as queue, asyncio.timeout(10):
        if exists:
            await queue.enqueue(jobs[0])
        with pytest.raises(Misconfigured):
            await queue.enqueue_many(jobs)
        assert await jobs_stored(queue) == int(exists)


@asynccontextmanager
async def locked(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Nothing can be written to the jobs until the block ends."""
    async with connection.transaction():
        await connection.execute("lock table hammerwork.jobs in exclusive mode")
        yield


WIDE = [Job("orders", "x" * 1500) for _ in range(COPY_BATCH)]
"""More than the driver, the kernel and Postgres keep between them."""


@pytest.fixture
async def stuck(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[None]]:
    """Waits until rows were made, and no more are: the driver waits for its buffer to empty."""
    made = 0
    row_of = store.row_of

    def counted(job: Job) -> tuple[object, ...]:
        nonlocal made
        made += 1
        return row_of(job)

    async def stands_still() -> None:
        before, quiet = made, 0
        while quiet < 20:
            await asyncio.sleep(0.02)
            quiet = quiet + 1 if made == before and made else 0
            before = made

    monkeypatch.setattr(store, "row_of", counted)
    return stands_still


async def test_a_copy_whose_connection_is_lost_while_it_cannot_send_is_begun_again(
    queue: Queue, connection: asyncpg.Connection, stuck: Callable[[], Awaitable[None]]
) -> None:
    async with asyncio.timeout(20):
        async with locked(connection):
            sending = asyncio.create_task(queue.enqueue_many(WIDE))
            await stuck()
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'relation'"
            )
        assert await sending == [Enqueued.STORED] * len(WIDE)
    assert await jobs_stored(queue) == len(WIDE)


async def test_a_copy_that_reaches_its_time_limit_while_it_cannot_send_is_begun_again(
    dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Queue(dsn) as queue, asyncio.timeout(30):
        await queue.stats()  # its pool is made, with the time limit of every other statement
        monkeypatch.setattr(database, "STATEMENT_TIMEOUT", 1.0)
        async with locked(connection):
            sending = asyncio.create_task(queue.enqueue_many(WIDE))
            await until(lambda: blocked(queue, 1))
            await until(lambda: blocked(queue, 2))  # the second try, beside the first one's last moments
        monkeypatch.undo()
        assert await sending == [Enqueued.STORED] * len(WIDE)
        assert await jobs_stored(queue) == len(WIDE)


async def test_a_caller_that_gives_up_in_the_middle_of_a_copy_leaves_nothing_behind(
    dsn: str, connection: asyncpg.Connection, stuck: Callable[[], Awaitable[None]]
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
    async with Queue(dsn, connections=2) as queue, asyncio.timeout(20):
        async with locked(connection):
            sending = asyncio.create_task(queue.enqueue_many(WIDE))
            await stuck()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            assert sending.cancelled()
        await asyncio.gather(*(queue.enqueue(Job("orders", n)) for n in range(MANY)))
        assert await jobs_stored(queue) == MANY
    del sending
    gc.collect()
    assert complaints == []


# --- single ones, together ------------------------------------------------------------------------


async def test_singles_that_come_at_once_share_statements(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    jobs = [Job("orders", n) for n in range(200)]
    assert await asyncio.gather(*map(queue.enqueue, jobs)) == [job.id for job in jobs]
    assert await jobs_stored(queue) == 200
    assert await statements(connection) <= 3


async def test_a_single_that_waits_alone_is_sent_at_once(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    for n in range(5):
        await queue.enqueue(Job("orders", n))
        assert await jobs_stored(queue) == n + 1
    assert await statements(connection) == 5


class Gated(Enqueuer):
    """Answers when the test says so, to all statements in one turn of the loop, as one read of two sockets
    may."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, patience=1.0)
        self.gates: list[asyncio.Future[None]] = []

    async def _persist(
        self, rows: Sequence[tuple[object, ...]], *, known: bool = False, unsure: bool = False
    ) -> set[UUID]:
        self.gates.append(asyncio.get_running_loop().create_future())
        await self.gates[-1]
        return set()

    async def under_way(self, statements: int) -> None:
        while len(self.gates) < statements:  # noqa: ASYNC110 - turns of the loop are what the test counts
            await asyncio.sleep(0)

    def answer(self) -> None:
        for gate in self.gates:
            gate.set_result(None)
        self.gates.clear()


async def test_a_single_that_comes_as_the_last_ones_land_is_not_stranded(database: Database) -> None:
    gated = Gated(database)

    async def enqueue(times: int) -> None:
        for _ in range(times):
            await gated.one(Job("orders"))

    async with asyncio.timeout(5):
        first = asyncio.create_task(enqueue(2))
        await gated.under_way(1)
        second = asyncio.create_task(enqueue(1))
        await gated.under_way(2)
        gated.answer()
        await gated.under_way(1)
        gated.answer()
        await asyncio.gather(first, second)
    await gated.close()


async def test_a_job_that_cannot_be_written_is_refused_to_its_caller(queue: Queue) -> None:
    odd = Job("orders", correlation_id=5)  # type: ignore[arg-type]
    calls = [queue.enqueue(Job("orders", n)) for n in range(MANY)]
    outcomes = await asyncio.gather(queue.enqueue(odd), *calls, return_exceptions=True)
    assert isinstance(outcomes[0], Misconfigured)
    assert await jobs_stored(queue) == MANY


@pytest.mark.parametrize("count", [30, MANY])
async def test_what_postgres_refuses_is_its_own_callers_error_alone(own_queue: Queue, count: int) -> None:
    async with own_queue.database.acquire() as connection:
        # An operator's own constraint: nothing that we could check before.
        await connection.execute("alter table hammerwork.jobs add check (payload <> '13')")
    outcomes = await asyncio.gather(
        *(own_queue.enqueue(Job("orders", n)) for n in range(count)), return_exceptions=True
    )
    refused = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, BaseException)]
    assert refused == [13]
    assert isinstance(outcomes[13], asyncpg.CheckViolationError)
    assert await jobs_stored(own_queue) == count - 1


def odd(**fields: Any) -> Job:
    """A job with values that its own checks would not have let pass."""
    job = Job("orders")
    for name, value in fields.items():
        object.__setattr__(job, name, value)
    return job


LONG_AGO = datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))


@pytest.mark.parametrize("fields", [{"result_ttl": 5}, {"run_at": LONG_AGO}, {"delay": timedelta.max}])
@pytest.mark.parametrize("count", [1, MANY])
async def test_a_value_that_postgres_cannot_take_is_said_at_once_to_who_gave_it(
    queue: Queue, fields: dict[str, Any], count: int
) -> None:
    jobs = [*(Job("orders", n) for n in range(count - 1)), odd(**fields)]
    async with asyncio.timeout(5):
        with pytest.raises(Misconfigured, match="Postgres cannot take"):
            await queue.enqueue_many(jobs)
        assert await jobs_stored(queue) == 0
        outcomes = await asyncio.gather(*map(queue.enqueue, jobs), return_exceptions=True)
    assert [job.id for job in jobs[:-1]] == outcomes[:-1]
    assert isinstance(outcomes[-1], Misconfigured)
    assert await jobs_stored(queue) == count - 1


async def test_while_postgres_is_away_every_single_is_told() -> None:
    nowhere = f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"
    async with asyncio.timeout(10):
        queue = Queue(nowhere, patience=timedelta(milliseconds=100))
        outcomes = await asyncio.gather(
            *(queue.enqueue(Job("orders")) for _ in range(9)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [Unavailable] * 9
        await queue.close()


async def test_a_caller_that_gives_up_takes_nobody_with_it(queue: Queue) -> None:
    calls = [asyncio.create_task(queue.enqueue(Job("orders", n))) for n in range(40)]
    await asyncio.sleep(0)
    calls[0].cancel()
    calls[30].cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes) == 2
    assert await jobs_stored(queue) >= 38


async def test_closing_stores_what_is_on_its_way(queue: Queue, connection: asyncpg.Connection) -> None:
    lock = connection.transaction()
    await lock.start()
    await connection.execute("lock table hammerwork.jobs in exclusive mode")
    calls = []
    for n in range(FLIGHTS + 5):
        calls.append(asyncio.create_task(queue.enqueue(Job("orders", n))))
        await asyncio.sleep(0)
    await until(lambda: blocked(queue, FLIGHTS))
    closing = asyncio.create_task(queue.close())
    await asyncio.sleep(0)
    await lock.rollback()
    await asyncio.gather(closing, *calls)
    assert await connection.fetchval("select count(*) from hammerwork.jobs") == FLIGHTS + 5


async def blocked(queue: Queue, statements: int) -> bool:
    """Whether so many statements wait for a lock."""
    async with queue.database.acquire() as own:
        waiting = await own.fetchval("select count(*) from pg_stat_activity where wait_event = 'relation'")
    return bool(waiting == statements)


# --- ids ------------------------------------------------------------------------------------------


def test_ids_sort_in_the_order_in_which_they_are_made() -> None:
    ids = [new_id(slot=n % 1024) for n in range(10_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_rows_keep_their_shape_between_the_statement_and_the_copy() -> None:
    row = store.row_of(Job("orders", delay=timedelta(1)))
    assert row[-2:] == (None, timedelta(1))
