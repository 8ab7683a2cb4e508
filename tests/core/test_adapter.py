"""A job in the caller's own transaction: it exists if and when that commits, whatever the library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.sql import text

from hammerwork.core.errors import Misconfigured, NotFound
from hammerwork.core.job import Job, JobState, Priority
from hammerwork.core.queue import Enqueued, Queue
from hammerwork.core.retry import Linear

from .running import before, both_servers


class RolledBack(Exception):
    """Raised inside a transaction to undo it."""


@contextmanager
def undone() -> Iterator[None]:
    """A block that ends in RolledBack."""
    try:
        yield
    except RolledBack:
        return
    pytest.fail("the block was not rolled back")


@asynccontextmanager
async def of_asyncpg(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def of_an_asyncpg_pool(dsn: str) -> AsyncIterator[object]:
    async with (
        asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        yield connection


@asynccontextmanager
async def of_psycopg(dsn: str) -> AsyncIterator[object]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        yield connection


def engine_for(dsn: str, driver: str) -> AsyncEngine:
    return create_async_engine(dsn.replace("postgresql://", f"postgresql+{driver}://"))


def of_sqlalchemy(driver: str) -> Callable[[str], AbstractAsyncContextManager[object]]:
    @asynccontextmanager
    async def transaction(dsn: str) -> AsyncIterator[object]:
        engine = engine_for(dsn, driver)
        try:
            async with engine.begin() as connection:
                yield connection
        finally:
            await engine.dispose()

    return transaction


def of_a_session(driver: str) -> Callable[[str], AbstractAsyncContextManager[object]]:
    @asynccontextmanager
    async def transaction(dsn: str) -> AsyncIterator[object]:
        engine = engine_for(dsn, driver)
        try:
            async with AsyncSession(engine) as session, session.begin():
                yield session
        finally:
            await engine.dispose()

    return transaction


Transaction = Callable[[str], AbstractAsyncContextManager[object]]

every_library = pytest.mark.parametrize(
    "transaction",
    [
        pytest.param(of_asyncpg, id="asyncpg"),
        pytest.param(of_an_asyncpg_pool, id="asyncpg-pool"),
        pytest.param(of_psycopg, id="psycopg"),
        pytest.param(of_sqlalchemy("asyncpg"), id="sqlalchemy-asyncpg"),
        pytest.param(of_sqlalchemy("psycopg"), id="sqlalchemy-psycopg"),
        pytest.param(of_a_session("asyncpg"), id="session-asyncpg"),
        pytest.param(of_a_session("psycopg"), id="session-psycopg"),
    ],
)


@every_library
async def test_a_committed_transaction_brings_its_jobs(
    queue: Queue, dsn: str, transaction: Transaction
) -> None:
    job = Job(
        "orders",
        {"text": "naïve ☃ %s $1", "n": 1.5},
        priority=Priority.HIGH,
        delay=timedelta(minutes=5),
        timeout=timedelta(seconds=3),
        retry=Linear(timedelta(seconds=2)),
        correlation_id="c-1",
        headers={"tenant": "acme"},
    )
    async with transaction(dsn) as conn:
        assert await queue.enqueue(job, conn=conn) == job.id
        with pytest.raises(NotFound):
            await queue.get(job.id)  # seen from outside
    stored = await queue.get(job.id)
    assert (stored.payload, stored.headers) == (job.payload, {"tenant": "acme"})
    assert (stored.state, stored.priority) == (JobState.SCHEDULED, Priority.HIGH)
    assert stored.correlation_id == "c-1"


@every_library
async def test_a_rolled_back_transaction_takes_its_jobs_along(
    queue: Queue, dsn: str, transaction: Transaction
) -> None:
    jobs = [Job("orders", n) for n in range(3)]
    with undone():
        async with transaction(dsn) as conn:
            answers = await queue.enqueue_many([*jobs, jobs[0]], conn=conn)
            assert answers == [Enqueued.STORED] * 3 + [Enqueued.DUPLICATE]
            raise RolledBack
    assert await queue.jobs() == []


@every_library
async def test_the_callers_own_writes_and_the_job_share_one_fate(
    queue: Queue, dsn: str, transaction: Transaction, connection: asyncpg.Connection
) -> None:
    await connection.execute("create table invoices (n integer)")
    for fate in (True, False):
        try:
            async with transaction(dsn) as conn:
                await execute(conn, "insert into invoices values (1)")
                await queue.enqueue(Job("orders"), conn=conn)
                await execute(conn, "insert into invoices values (2)")
                if not fate:
                    raise RolledBack
        except RolledBack:
            pass
        assert await connection.fetchval("select count(*) from invoices") == 2
        assert len(await queue.jobs()) == 1


async def execute(conn: Any, sql: str) -> None:
    await conn.execute(text(sql) if hasattr(conn, "sync_session") or hasattr(conn, "sync_engine") else sql)


@both_servers
async def test_many_jobs_go_into_one_transaction_of_the_caller(queue: Queue, dsn: str) -> None:
    jobs = [Job("orders", n) for n in range(2_500)]
    async with of_asyncpg(dsn) as conn:
        assert await queue.enqueue_many(jobs, conn=conn) == [Enqueued.STORED] * 2_500
    with undone():
        async with of_asyncpg(dsn) as conn:
            await queue.enqueue_many([Job("orders") for _ in range(2_500)], conn=conn)
            raise RolledBack
    (stats,) = await queue.stats()
    assert stats.available == 2_500


async def test_workers_are_told_when_the_callers_transaction_commits(queue: Queue, dsn: str) -> None:
    listener = await asyncpg.connect(dsn)
    heard = asyncio.Event()
    await listener.add_listener(
        "hammerwork", lambda *word: heard.set() if word[3] == "queue orders" else None
    )
    async with of_psycopg(dsn) as conn:
        await queue.enqueue(Job("orders"), conn=conn)
        assert not heard.is_set()
    await before(heard)
    await listener.close()


async def test_a_savepoint_that_is_rolled_back_takes_its_job_along(queue: Queue, dsn: str) -> None:
    kept, dropped = Job("orders"), Job("orders")
    async with of_asyncpg(dsn) as conn:
        await queue.enqueue(kept, conn=conn)
        with undone():
            async with conn.transaction():
                await queue.enqueue(dropped, conn=conn)
                raise RolledBack
    assert [job.id for job in await queue.jobs()] == [kept.id]


async def test_what_is_no_connection_is_refused_with_what_is_one(queue: Queue, dsn: str) -> None:
    engine = engine_for(dsn, "asyncpg")
    for wrong in (object(), "postgresql://", 7, engine, engine.sync_engine):
        with pytest.raises(Misconfigured, match="conn= cannot be") as caught:
            await queue.enqueue(Job("orders"), conn=wrong)
        assert "AsyncSession" in caught.value.hint
    await engine.dispose()
    with psycopg.connect(dsn) as blocking, pytest.raises(Misconfigured, match="conn= cannot be"):
        await queue.enqueue(Job("orders"), conn=blocking)
    assert await queue.jobs() == []
