"""Hints: work is picked up before the poll, the connection comes back, and NOTIFY stays rare."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from uuid import UUID

import asyncpg
import pytest

from hammerwork.core.execute.running import RunningJob
from hammerwork.core.identity import new_id
from hammerwork.core.job import Job, JobState
from hammerwork.core.postgres.database import Database
from hammerwork.core.postgres.notifier import Announcer, Notifier
from hammerwork.core.queue import Queue

from ..services.postgres import PostgresService
from ..services.proxy import FaultProxy
from .running import both_servers, running, until, worker_of

LONG_POLL = timedelta(minutes=5)


class Heard:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.queues: list[str] = []
        self.cancelled: list[UUID] = []
        self.missed = 0

    def work_waits(self, queue: str) -> None:
        self.queues.append(queue)

    def cancel_asked(self, job_id: UUID) -> None:
        self.cancelled.append(job_id)

    def hints_missed(self) -> None:
        self.missed += 1


@pytest.fixture
async def notifier(database: Database) -> AsyncIterator[Notifier]:
    """A notifier that hears itself."""
    notifier = Notifier(database)
    async with running(notifier):
        await until(lambda: hears(notifier))
        yield notifier


async def hears(notifier: Notifier) -> bool:
    return notifier.hears


async def deaf(notifier: Notifier) -> bool:
    return not notifier.hears


async def end_listeners(connection: asyncpg.Connection) -> int:
    """Terminate the backends that LISTEN."""
    return int(
        await connection.fetchval(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where datname = current_database() and query ilike 'listen %' and pid <> pg_backend_pid()"
        )
    )


@both_servers
async def test_a_job_is_picked_up_long_before_the_poll(queue: Queue, notifier: Notifier) -> None:
    worker = worker_of(queue, {"orders": lambda job: job.payload}, poll=LONG_POLL, notifier=notifier)
    async with running(worker):
        for n in range(5):
            job = Job("orders", n)
            started = time.monotonic()
            await queue.enqueue(job)
            assert await queue.result(job.id, timeout=timedelta(seconds=10)) == n
            assert time.monotonic() - started < 2


async def test_without_a_hint_the_poll_finds_it(queue: Queue, connection: asyncpg.Connection) -> None:
    silent = Notifier(queue.database)  # does not run: nothing is heard
    worker = worker_of(queue, {"orders": lambda job: None}, poll=timedelta(milliseconds=100), notifier=silent)
    async with running(worker):
        job = Job("orders")
        await queue.enqueue(job)
        await queue.result(job.id, timeout=timedelta(seconds=5))


async def test_listeners_hear_until_they_are_forgotten(queue: Queue, notifier: Notifier) -> None:
    staying, leaving = Heard(), Heard()
    notifier.subscribe(staying)
    forget = notifier.subscribe(leaving)
    job_id = new_id()
    await queue.database.fetch("announce", ["queue orders", f"cancel {job_id}", "cancel nonsense", "???", ""])
    await until(lambda: got(staying, job_id))
    assert (staying.queues, leaving.queues, leaving.cancelled) == (["orders"], ["orders"], [job_id])
    forget()
    await queue.database.fetch("announce", ["queue billing"])

    async def heard_billing() -> bool:
        return "billing" in staying.queues

    await until(heard_billing)
    assert leaving.queues == ["orders"]


@both_servers
async def test_a_retry_and_a_cancellation_are_heard(queue: Queue, notifier: Notifier) -> None:
    heard, job, later = Heard(), Job("orders"), Job("billing", delay=timedelta(hours=1))

    async def heard_billing() -> bool:
        return "billing" in heard.queues

    async def never_end(job: RunningJob) -> None:
        await asyncio.Event().wait()

    await queue.enqueue(later)
    worker = worker_of(queue, {"orders": never_end}, notifier=notifier)
    async with running(worker):
        await queue.enqueue(job)
        await until(partial(is_running, queue, job.id))
        notifier.subscribe(heard)
        await queue.retry(later.id)
        await until(heard_billing)
        await queue.cancel(job.id)
        await until(lambda: got(heard, job.id))


async def is_running(queue: Queue, job_id: UUID) -> bool:
    return (await queue.get(job_id)).state == JobState.RUNNING


async def got(heard: Heard, job_id: UUID) -> bool:
    return job_id in heard.cancelled


async def test_a_connection_that_is_terminated_comes_back_and_says_that_hints_were_missed(
    queue: Queue, notifier: Notifier, connection: asyncpg.Connection
) -> None:
    heard = Heard()
    notifier.subscribe(heard)
    for times in (1, 2):
        assert await end_listeners(connection) == 1
        await until(partial(missed, heard, times))
        await until(lambda: hears(notifier))
    await queue.enqueue(Job("orders"))

    async def heard_orders() -> bool:
        return heard.queues == ["orders"]

    await until(heard_orders)


async def missed(heard: Heard, times: int) -> bool:
    return heard.missed == times


async def test_work_that_came_while_nobody_listened_is_taken_after_the_reconnect(
    queue: Queue, notifier: Notifier, connection: asyncpg.Connection
) -> None:
    worker = worker_of(queue, {"orders": lambda job: None}, poll=LONG_POLL, notifier=notifier)
    async with running(worker):
        first = Job("orders")
        await queue.enqueue(first)
        await queue.result(first.id, timeout=timedelta(seconds=10))
        await end_listeners(connection)
        await until(lambda: deaf(notifier))
        # Stored without any word: only the look after the reconnect can find it.
        job_id = new_id()
        await connection.execute(
            "insert into hammerwork.jobs (id, queue, state) values ($1, 'orders', 'available')", job_id
        )
        await queue.result(job_id, timeout=timedelta(seconds=10))


async def test_a_network_that_swallows_everything_is_noticed(
    dsn: str, postgres_service: PostgresService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hammerwork.core.postgres.notifier.SELF_TEST_EVERY", 0.05)
    monkeypatch.setattr("hammerwork.core.postgres.notifier.SELF_TEST_WITHIN", 0.3)
    monkeypatch.setattr("hammerwork.core.postgres.database.STATEMENT_TIMEOUT", 0.5)
    async with (
        FaultProxy(*postgres_service.address) as proxy,
        Database(postgres_service.dsn(dsn.rpartition("/")[2], port=proxy.port)) as database,
    ):
        notifier = Notifier(database)
        async with running(notifier):
            await until(lambda: hears(notifier))
            proxy.blackhole()
            await until(lambda: deaf(notifier))
            proxy.cut()
            proxy.heal()
            await until(lambda: hears(notifier))


# --- the announcer --------------------------------------------------------------------------------


@pytest.fixture
async def words(dsn: str) -> AsyncIterator[list[str]]:
    """What is said on the channel, as it is said."""
    said: list[str] = []
    listener = await asyncpg.connect(dsn)
    await listener.add_listener("hammerwork", lambda *word: said.append(str(word[3])))
    yield said
    await listener.close()


async def test_a_burst_of_enqueues_is_announced_rarely_and_its_last_job_too(
    queue: Queue, words: list[str]
) -> None:
    started = time.monotonic()
    for n in range(200):
        await queue.enqueue(Job("orders", n))
    took = time.monotonic() - started
    said_before = len(words)
    await queue.close()

    async def trailing() -> bool:
        return len(words) > 0

    await until(trailing)
    assert said_before <= took / Announcer.EVERY + 1
    assert set(words) == {"queue orders"}


async def test_a_queue_that_was_just_announced_is_owed_a_word_and_gets_it(
    database: Database, words: list[str]
) -> None:
    announcer = Announcer(database)
    announcer.announce(["orders"])
    await until(lambda: equal(words, ["queue orders"]))
    announcer.announce(["orders"])
    announcer.announce(["orders", "billing"])
    await announcer.close()
    await until(lambda: equal(words, ["queue orders", "queue billing", "queue orders"]))


async def equal(words: list[str], expected: list[str]) -> bool:
    return words == expected


async def test_a_word_that_is_owed_is_said_after_the_commit_however_long_that_takes(
    queue: Queue, words: list[str], connection: asyncpg.Connection
) -> None:
    slow = connection.transaction()
    await slow.start()
    await connection.execute("lock table hammerwork.jobs in exclusive mode")
    enqueuing = asyncio.create_task(queue.enqueue(Job("orders")))
    await until(lambda: blocked(queue))
    await asyncio.sleep(Announcer.EVERY * 4)
    assert words == []
    await slow.rollback()
    await enqueuing

    async def heard() -> bool:
        return words == ["queue orders"]

    await until(heard)


async def blocked(queue: Queue) -> bool:
    async with queue.database.acquire() as connection:
        return bool(
            await connection.fetchval("select count(*) from pg_stat_activity where wait_event = 'relation'")
        )


async def test_a_word_that_cannot_be_said_is_left_to_the_poll(queue: Queue) -> None:
    announcer = Announcer(queue.database)
    announcer.announce(["orders"])
    await queue.database.close()
    await announcer.close()
