"""Upkeep: due jobs are promoted, lost workers' jobs rescued, old rows pruned, partitions made and dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from hammerwork.core import operate, upkeep
from hammerwork.core.errors import Unavailable
from hammerwork.core.identity import new_id
from hammerwork.core.job import Job, JobState
from hammerwork.core.postgres import store
from hammerwork.core.postgres.database import Database
from hammerwork.core.postgres.duty import Duty
from hammerwork.core.queue import Queue
from hammerwork.core.retry import Fixed
from hammerwork.core.upkeep import Retention, Upkeep

from ..claiming import claim
from .running import both_servers, running, until, worker_of

REGISTER = """
insert into hammerwork.workers (id, host, pid, queues, concurrency, lease, state, heartbeat_at)
values ($1, 'test', 1, '{orders}', 1, $2, 'running', now() - $3::interval)
"""


async def worker_that_beat(connection: asyncpg.Connection, ago: timedelta) -> UUID:
    """A worker with a lease of 50 ms that said so for the last time a while ago."""
    worker = uuid4()
    await connection.execute(REGISTER, worker, timedelta(milliseconds=50), ago)
    return worker


async def claimed_by(queue: Queue, worker: UUID, count: int = 1) -> list[Any]:
    return await claim(queue.database, "orders", worker, count)


# --- promotion ------------------------------------------------------------------------------------


@both_servers
async def test_due_jobs_become_available_and_others_wait(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    due, later = Job("orders", delay=timedelta(seconds=60)), Job("orders", delay=timedelta(hours=1))
    await queue.enqueue_many([due, later])
    assert await Upkeep(queue.database).promote() == 0
    await connection.execute("update hammerwork.jobs set run_at = now() where id = $1", due.id)
    assert await Upkeep(queue.database).promote() == 1
    assert (await queue.get(due.id)).state is JobState.AVAILABLE
    assert (await queue.get(later.id)).state is JobState.SCHEDULED


async def test_a_delayed_job_runs_when_it_is_due_and_its_worker_is_told(queue: Queue) -> None:
    job = Job("orders", delay=timedelta(milliseconds=300))
    await queue.enqueue(job)
    worker = worker_of(queue, {"orders": lambda job: None}, poll=timedelta(minutes=5), upkeep=True)
    async with running(worker):
        await queue.result(job.id, timeout=timedelta(seconds=10))
    stored = await queue.get(job.id)
    assert stored.claimed_at is not None
    assert stored.claimed_at >= stored.run_at


async def test_a_failed_job_comes_back_by_itself(queue: Queue) -> None:
    job = Job("orders", retry=Fixed(timedelta(milliseconds=50)))
    await queue.enqueue(job)

    def handle(job: Any) -> str:
        if job.attempt < 3:
            raise ValueError("not yet")
        return "at last"

    async with running(worker_of(queue, {"orders": handle}, upkeep=True)):
        assert await queue.result(job.id, timeout=timedelta(seconds=15)) == "at last"


async def test_four_that_promote_at_once_promote_each_job_once(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=60)
    await queue.enqueue_many([Job("orders", run_at=soon) for _ in range(500)])
    await connection.execute("update hammerwork.jobs set run_at = now()")
    counts = await asyncio.gather(*(Upkeep(queue.database).promote() for _ in range(4)))
    assert sum(counts) == 500
    assert len(await queue.jobs(state=JobState.AVAILABLE, limit=1000)) == 500


async def test_a_reader_that_holds_a_table_for_long_does_not_hold_up_due_jobs(
    own_queue: Queue, empty_dsn: str
) -> None:
    async with own_queue.database.acquire() as connection:  # so that there is something to make
        await connection.execute(f"drop table hammerwork.history_{day(5)}")
    dump = await asyncpg.connect(empty_dsn)
    await dump.execute("begin; lock table hammerwork.history, hammerwork.events in access share mode")
    job = Job("orders", delay=timedelta(milliseconds=100))
    await own_queue.enqueue(job)
    try:
        async with running(Upkeep(own_queue.database)):

            async def promoted() -> bool:
                return (await own_queue.get(job.id)).state is JobState.AVAILABLE

            await until(promoted, within=5)
    finally:
        await dump.close()


# --- rescue ---------------------------------------------------------------------------------------


@both_servers
async def test_the_jobs_of_a_lost_worker_go_back_and_the_attempt_counts(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    jobs = [Job("orders", n) for n in range(3)]
    await queue.enqueue_many(jobs)
    worker = await worker_that_beat(connection, timedelta(hours=1))
    rows = await claimed_by(queue, worker, 2)
    assert await Upkeep(queue.database).rescue() == 2
    for row in rows:
        stored = await queue.get(row["id"])
        assert (stored.state, stored.attempt, stored.lease) == (JobState.AVAILABLE, 1, 1)
        assert (stored.claimed_by, stored.claimed_at) == (None, None)
        (attempt,) = await operate.attempts(queue.database, row["id"])
        assert (attempt.cause, attempt.worker, attempt.attempt) == ("lost", worker, 1)
        assert "was lost" in str(stored.error)
    assert (await queue.get(jobs[2].id)).attempt == 0
    assert await operate.workers(queue.database) == []
    assert await Upkeep(queue.database).rescue() == 0


async def test_a_worker_whose_lease_is_not_over_keeps_its_jobs(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    await queue.enqueue(Job("orders"))
    # Its beat lies ahead, because a server that has just started gives everybody a lease's time anyway.
    await claimed_by(queue, await worker_that_beat(connection, timedelta(minutes=-1)))
    assert await Upkeep(queue.database).rescue() == 0
    assert len(await queue.jobs(state=JobState.RUNNING)) == 1


@both_servers
async def test_a_job_that_was_lost_with_its_last_attempt_is_dead(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    job = Job("orders", {"n": 1}, max_attempts=1)
    await queue.enqueue(job)
    await claimed_by(queue, await worker_that_beat(connection, timedelta(hours=1)))
    assert await Upkeep(queue.database).rescue() == 1
    stored = await queue.get(job.id)
    assert (stored.state, stored.attempt) == (JobState.DEAD, 1)
    (letter,) = await operate.dead_letters(queue.database)
    assert (letter.reason, letter.job_id) == ("lost", job.id)
    (attempt,) = await operate.attempts(queue.database, job.id)
    assert attempt.cause == "lost"


async def test_a_job_that_was_to_be_cancelled_is_cancelled_by_the_rescue(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    job = Job("orders", max_attempts=1)
    await queue.enqueue(job)
    await claimed_by(queue, await worker_that_beat(connection, timedelta(hours=1)))
    assert await queue.cancel(job.id, "not wanted") is JobState.RUNNING
    assert await Upkeep(queue.database).rescue() == 1
    stored = await queue.get(job.id)
    assert (stored.state, stored.error) == (JobState.CANCELLED, "not wanted")
    assert await operate.dead_letters(queue.database) == []


async def test_a_worker_with_very_many_jobs_is_rescued_in_portions(
    queue: Queue, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "RESCUE_AT_ONCE", 4)
    await queue.enqueue_many([Job("orders", n) for n in range(10)])
    await claimed_by(queue, await worker_that_beat(connection, timedelta(hours=1)), 10)
    assert [await Upkeep(queue.database).rescue() for _ in range(4)] == [4, 4, 2, 0]
    assert len(await queue.jobs(state=JobState.AVAILABLE)) == 10


async def test_of_two_rescues_at_once_each_job_is_given_back_once(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    await queue.enqueue_many([Job("orders", n) for n in range(50)])
    for _ in range(5):
        await claimed_by(queue, await worker_that_beat(connection, timedelta(hours=1)), 10)
    await asyncio.gather(*(Upkeep(queue.database).rescue() for _ in range(4)))
    assert await Upkeep(queue.database).rescue() == 0
    assert await connection.fetchval("select count(*) from hammerwork.attempts") == 50
    assert len(await queue.jobs(state=JobState.AVAILABLE, limit=100)) == 50


async def test_jobs_without_any_worker_are_found(queue: Queue, connection: asyncpg.Connection) -> None:
    job = Job("orders")
    await queue.enqueue(job)
    await claimed_by(queue, await worker_that_beat(connection, timedelta(0)))
    await connection.execute("delete from hammerwork.workers")
    assert await Upkeep(queue.database).rescue_ownerless() == 1
    assert (await queue.get(job.id)).state is JobState.AVAILABLE


async def test_ownerless_jobs_are_looked_for_as_rarely_as_that_is_dear_and_not_at_the_start(
    queue: Queue, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def left_ownerless() -> Job:
        job = Job("orders")
        await queue.enqueue(job)
        await claimed_by(queue, await worker_that_beat(connection, timedelta(0)))
        await connection.execute("delete from hammerwork.workers")
        return job

    async def tidied() -> bool:
        return bool(await connection.fetchval("select count(*) = 0 from hammerwork.results"))

    first = await left_ownerless()
    await connection.execute(
        "insert into hammerwork.results values (gen_random_uuid(), '1', now() - interval '1 hour')"
    )
    async with running(Upkeep(queue.database)):
        await until(tidied)
    assert (await queue.get(first.id)).state is JobState.RUNNING
    monkeypatch.setattr(upkeep, "OWNERLESS_SHARE", 1_000_000)
    patient = Upkeep(queue.database)
    await patient.tidy()
    assert (await queue.get(first.id)).state is JobState.AVAILABLE
    await queue.cancel(first.id, "in the way of the next")
    second = await left_ownerless()
    await patient.tidy()
    assert (await queue.get(second.id)).state is JobState.RUNNING


async def test_a_worker_that_still_holds_jobs_does_not_leave_the_list(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    await queue.enqueue(Job("orders"))
    worker = await worker_that_beat(connection, timedelta(0))
    await claimed_by(queue, worker)
    await queue.database.fetch("unregister_worker", worker)
    assert [known.id for known in await operate.workers(queue.database)] == [worker]


# --- producers that stop in their tracks ----------------------------------------------------------


@both_servers
async def test_a_copy_whose_producer_stopped_in_its_tracks_is_ended(
    queue: Queue, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "STUCK_AFTER", timedelta(seconds=1))
    monkeypatch.setattr(upkeep, "UNSTICK_EVERY", 0.2)
    told, stopped, patient = asyncio.Event(), asyncio.Event(), Job("orders")

    async def rows() -> AsyncIterator[tuple[object, ...]]:
        for _ in range(3000):
            yield store.row_of(Job("orders", "x" * 250))
        told.set()
        await stopped.wait()

    async with Queue(dsn) as producer, running(Upkeep(queue.database)):
        async with producer.database.acquire() as theirs:
            copying = asyncio.create_task(store.copy(theirs, rows(), []))
            await asyncio.wait_for(told.wait(), 10)
            await queue.enqueue(patient)
            with pytest.raises(asyncpg.PostgresConnectionError):
                async with asyncio.timeout(10):
                    await copying
        assert [job.id for job in await queue.jobs(limit=5)] == [patient.id]


# --- duties ---------------------------------------------------------------------------------------


@both_servers
async def test_a_duty_has_one_holder_until_it_leaves_or_falls_silent(database: Database) -> None:
    first = Duty(database, "upkeep", hold=timedelta(milliseconds=200))
    second = Duty(database, "upkeep", hold=timedelta(seconds=30))
    other = Duty(database, "relay.billing")
    assert await first.ours()
    assert await other.ours()
    assert not await second.ours()
    assert await first.ours()
    await until(second.ours, within=5)  # the first fell silent
    assert not await first.ours()
    await second.leave()
    assert await first.ours()


async def test_upkeep_that_stops_leaves_its_duty_to_the_next(queue: Queue) -> None:
    duty = Duty(queue.database, "upkeep", hold=timedelta(milliseconds=1))

    async def taken() -> bool:
        return not await duty.ours()

    async with running(Upkeep(queue.database)):
        await until(taken)
    assert await duty.ours()


# --- what is past its time ------------------------------------------------------------------------


async def test_results_past_their_ttl_are_pruned_and_others_kept(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    brief, lasting = Job("orders", result_ttl=timedelta(0)), Job("orders")
    await queue.enqueue_many([brief, lasting])
    async with running(worker_of(queue, {"orders": lambda job: "kept"})):
        await queue.result(lasting.id, timeout=timedelta(seconds=5))

        async def both() -> bool:
            return bool(await connection.fetchval("select count(*) = 2 from hammerwork.history"))

        await until(both)
    await Upkeep(queue.database).tidy()
    rows = await connection.fetch("select job_id from hammerwork.results")
    assert [row["job_id"] for row in rows] == [lasting.id]


async def test_the_inbox_keeps_each_bridges_window(queue: Queue, connection: asyncpg.Connection) -> None:
    await queue.database.fetch("register_bridge", "short", "rabbitmq", timedelta(hours=1))
    await queue.database.fetch("register_bridge", "long", "rabbitmq", timedelta(days=90))
    await connection.execute(
        "insert into hammerwork.inbox (bridge, message_id, body_sha256, received_at)"
        " select bridge, age::text, '', now() - age from"
        " unnest(array['short', 'long', 'forgotten']) as bridge,"
        " unnest(array['1 minute', '2 hours', '60 days']::interval[]) as age"
    )
    await Upkeep(queue.database).tidy()
    rows = await connection.fetch(
        "select bridge, count(*) as kept from hammerwork.inbox group by bridge order by bridge"
    )
    assert [tuple(row) for row in rows] == [("forgotten", 2), ("long", 3), ("short", 1)]


async def test_closed_dead_letters_are_pruned_and_open_ones_kept_for_ever(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    ids = [new_id() for _ in range(4)]
    for letter_id, column in zip(
        ids, ["created_at", "replayed_at", "discarded_at", "replayed_at"], strict=True
    ):
        age = "1 day" if letter_id == ids[3] else "1 year"
        await connection.execute(
            "insert into hammerwork.dead_letters (id, queue, reason, body, body_size, body_sha256) values"
            " ($1, 'orders', 'failed', '', 0, '')",
            letter_id,
        )
        await connection.execute(
            f"update hammerwork.dead_letters set {column} = now() - $2::text::interval where id = $1",  # noqa: S608
            letter_id,
            age,
        )
    await Upkeep(queue.database).tidy()
    kept = {row["id"] for row in await connection.fetch("select id from hammerwork.dead_letters")}
    assert kept == {ids[0], ids[3]}


# --- partitions -----------------------------------------------------------------------------------


async def partitions(queue: Queue) -> set[str]:
    return {row["name"] for row in await queue.database.fetch("list_partitions")}


def day(offset: int) -> str:
    return (datetime.now(UTC) + timedelta(days=offset)).strftime("%Y%m%d")


async def past(queue: Queue, parent: str, age: int) -> str:
    """A partition of some days ago."""
    async with queue.database.acquire() as connection:
        first, last = day(-age), day(1 - age)
        await connection.execute(
            f"create table hammerwork.{parent}_{first} partition of hammerwork.{parent}"
            f" for values from ('{first} 00:00+00') to ('{last} 00:00+00')"
        )
    return f"{parent}_{first}"


async def test_partitions_are_made_ahead_and_dropped_after_their_retention(own_queue: Queue) -> None:
    old = {await past(own_queue, "history", 9), await past(own_queue, "attempts", 33)}
    kept = {await past(own_queue, "history", 6), await past(own_queue, "attempts", 20)}
    async with own_queue.database.acquire() as connection:
        await connection.execute(f"drop table hammerwork.history_{day(5)}")
    await Upkeep(own_queue.database, Retention()).tidy()
    now = await partitions(own_queue)
    assert not old & now
    assert kept <= now
    for parent in ("history", "attempts", "events", "deliveries"):
        assert {f"{parent}_{day(offset)}" for offset in range(8)} <= now


async def test_jobs_finish_even_when_nobody_made_a_partition(own_queue: Queue) -> None:
    async with own_queue.database.acquire() as connection:
        for offset in range(-1, 8):
            await connection.execute(f"drop table if exists hammerwork.history_{day(offset)}")
    job = Job("orders")
    await own_queue.enqueue(job)
    async with running(worker_of(own_queue, {"orders": lambda job: 1})):
        assert await own_queue.result(job.id, timeout=timedelta(seconds=5)) == 1
    await Upkeep(own_queue.database).tidy()  # today's rows stay where they fell
    assert (await own_queue.get(job.id)).state is JobState.COMPLETED
    assert f"history_{day(1)}" in await partitions(own_queue)


async def test_events_are_kept_past_their_time_while_an_active_sink_has_not_read_them(
    own_queue: Queue,
) -> None:
    database = own_queue.database
    await database.fetch("register_sink", "billing", "webhook", ["job.completed"])
    name = await past(own_queue, "events", 10)
    async with database.acquire() as connection:
        await connection.execute(
            "insert into hammerwork.events (type, at) values ('job.completed', now() - interval '10 days')"
        )
    await Upkeep(database).tidy()
    assert name in await partitions(own_queue)
    async with database.acquire() as connection:
        await connection.execute(
            "update hammerwork.sinks set position_xid = (select xid from hammerwork.events),"
            " position_id = (select id from hammerwork.events)"
        )
    await Upkeep(database).tidy()
    assert name not in await partitions(own_queue)


async def test_events_that_nobody_waits_for_are_dropped(own_queue: Queue) -> None:
    name = await past(own_queue, "events", 10)
    async with own_queue.database.acquire() as connection:
        await connection.execute(
            "insert into hammerwork.events (type, at) values ('job.completed', now() - interval '10 days')"
        )
    await own_queue.database.fetch("register_sink", "late", "webhook", ["job.dead"])
    await Upkeep(own_queue.database).tidy()
    assert name not in await partitions(own_queue)


async def test_dropping_waits_for_nobody_for_long(own_queue: Queue, empty_dsn: str) -> None:
    name = await past(own_queue, "history", 9)
    reader = await asyncpg.connect(empty_dsn)
    await reader.execute("begin; select count(*) from hammerwork.history")
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable):
            await Upkeep(own_queue.database).tidy()
    await reader.close()
    await Upkeep(own_queue.database).tidy()
    assert name not in await partitions(own_queue)
