"""Floors: claims begin where the last ones ended, and nothing that comes back before them is forgotten."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from hammerwork.core.execute.floors import BEHIND, WHOLE_LOOK_EVERY, WHOLE_LOOK_WITHIN, Floors
from hammerwork.core.execute.roster import Wanted
from hammerwork.core.identity import new_id
from hammerwork.core.job import Job, Priority
from hammerwork.core.postgres.database import statement
from hammerwork.core.queue import Queue

from .running import both_servers, running, until, until_final, worker_of


async def claimed(queue: Queue, worker: UUID, floors: Floors, count: int, *, whole: bool) -> list[Any]:
    columns = floors.columns(Wanted({"orders": count}, count, count), whole=whole)
    rows = await queue.database.fetch("claim", *columns, count, worker)
    floors.claimed(rows, whole=whole, seconds=0.001)
    return [row["payload"] for row in rows]


@both_servers
async def test_a_claim_goes_on_where_the_last_one_ended(queue: Queue, worker: UUID) -> None:
    await queue.enqueue_many([Job("orders", n) for n in range(6)])
    floors = Floors()
    assert await claimed(queue, worker, floors, 2, whole=True) == ["0", "1"]
    assert await claimed(queue, worker, floors, 3, whole=False) == ["2", "3", "4"]
    assert await claimed(queue, worker, floors, 3, whole=False) == ["5"]


async def test_a_more_urgent_job_is_seen_at_once(queue: Queue, worker: UUID) -> None:
    await queue.enqueue_many([Job("orders", n) for n in range(6)])
    floors = Floors()
    await claimed(queue, worker, floors, 2, whole=True)
    await queue.enqueue(Job("orders", "urgent", priority=Priority.HIGH))
    assert await claimed(queue, worker, floors, 2, whole=False) == ['"urgent"', "2"]


async def test_what_comes_back_before_the_floor_is_found_by_a_whole_look_and_the_floor_falls(
    queue: Queue, worker: UUID, connection: asyncpg.Connection
) -> None:
    await queue.enqueue_many([Job("orders", n) for n in range(6)])
    floors = Floors()
    await claimed(queue, worker, floors, 4, whole=True)
    await connection.execute(
        "update hammerwork.jobs set state = 'available', claimed_by = null,"
        " run_at = run_at - interval '1 minute' where payload in ('0', '1')"
    )
    assert await claimed(queue, worker, floors, 1, whole=False) == ["4"]
    assert await claimed(queue, worker, floors, 1, whole=True) == ["0"]
    assert await claimed(queue, worker, floors, 2, whole=False) == ["1", "5"]


async def test_what_commits_a_little_late_is_seen_without_a_whole_look(
    queue: Queue, worker: UUID, connection: asyncpg.Connection
) -> None:
    transaction = connection.transaction()
    await transaction.start()
    await queue.enqueue(Job("orders", "late"), conn=connection)
    await queue.enqueue(Job("orders", "early"))
    floors = Floors()
    assert await claimed(queue, worker, floors, 2, whole=True) == ['"early"']
    await transaction.commit()
    assert await claimed(queue, worker, floors, 2, whole=False) == ['"late"']


async def test_a_busy_worker_takes_a_job_that_came_back_before_its_floor(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    """The old job is stored, unseen, while the queue never runs dry."""
    old = Job("orders", "old")
    fed = 0

    async def feed(job: Any) -> None:
        nonlocal fed
        if job.payload != "old":
            fed += 1
            await queue.enqueue(Job("orders", fed))

    async def has_fed() -> bool:
        return fed > 40

    await queue.enqueue_many([Job("orders", n) for n in range(20)])
    async with running(worker_of(queue, {"orders": feed}, poll=timedelta(minutes=1))):
        await until(has_fed)
        await queue.enqueue(old)
        await connection.execute(
            "update hammerwork.jobs set run_at = now() - interval '1 day'"
            " where id = $1 and state = 'available'",
            old.id,
        )
        async with asyncio.timeout(20 * WHOLE_LOOK_EVERY):
            await until_final(queue, old.id)


def test_a_dear_whole_look_is_a_rare_one_but_within_bounds() -> None:
    floors = Floors()
    assert floors.next_whole_look(rested=False) < time.monotonic()
    floors.claimed([], whole=True, seconds=0.0)
    assert floors.next_whole_look(rested=True) <= time.monotonic() < floors.next_whole_look(rested=False)
    floors.claimed([], whole=True, seconds=0.1)
    assert 1.0 < floors.next_whole_look(rested=True) - time.monotonic() < 3.0
    floors.claimed([], whole=True, seconds=60.0)
    assert floors.next_whole_look(rested=False) - time.monotonic() <= WHOLE_LOOK_WITHIN


@both_servers
async def test_a_queue_with_a_limit_of_its_own_keeps_it_over_all_priorities(
    queue: Queue, worker: UUID
) -> None:
    await queue.enqueue_many([Job("orders", int(p), priority=p) for p in Priority for _ in range(3)])
    columns = Floors().columns(Wanted({"orders": 2}, 100, 2), whole=True)
    rows = await queue.database.fetch("claim", *columns, 100, worker)
    assert [row["payload"] for row in rows] == ["4", "4"]


async def test_many_queues_are_looked_at_in_shares_but_for_what_is_urgent(queue: Queue, worker: UUID) -> None:
    names = ["orders", "billing", "mail", "audit"]
    jobs = [
        Job(name, name, priority=p)
        for name in names
        for p in (Priority.NORMAL, Priority.HIGH)
        for _ in range(8)
    ]
    await queue.enqueue_many(jobs)
    columns = Floors().columns(Wanted(dict.fromkeys(names, 40), 40, 3), whole=True)
    rows = await queue.database.fetch("claim", *columns, 40, worker)
    assert Counter(row["priority"] for row in rows) == {Priority.HIGH: 32, Priority.NORMAL: 8}
    locked = await queue.database.fetch("claim", *columns, 100, worker)
    assert Counter(row["queue"] for row in locked if row["priority"] == Priority.NORMAL) == dict.fromkeys(
        names, 3
    )


async def test_a_worker_of_many_queues_does_all_their_jobs(queue: Queue) -> None:
    names = [f"q{number}" for number in range(60)]
    done: Counter[str] = Counter()

    async def handle(job: Any) -> None:
        done[job.queue] += 1

    async def all_done() -> bool:
        return done == dict.fromkeys(names, 20)

    await queue.enqueue_many([Job(name) for name in names for _ in range(20)])
    async with running(
        worker_of(queue, dict.fromkeys(names, handle), concurrency=10, poll=timedelta(minutes=1))
    ):
        await until(all_done)


# --- nothing waits longer than the poll -----------------------------------------------------------


async def test_an_idle_worker_finds_a_job_that_commits_late(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    """Its place is before the floor: its transaction began before the job that set the floor."""
    async with running(worker_of(queue, {"orders": lambda job: None}, poll=timedelta(minutes=1))):
        transaction = connection.transaction()
        await transaction.start()
        late = await queue.enqueue(Job("orders", "late"), conn=connection)
        await asyncio.sleep(2 * BEHIND.total_seconds())  # not a hope: so much later the other one begins
        await until_final(queue, await queue.enqueue(Job("orders", "early")))
        await transaction.commit()
        async with asyncio.timeout(WHOLE_LOOK_WITHIN):
            await until_final(queue, late)


async def test_a_busy_queue_does_not_keep_another_from_its_poll(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    async def feed(job: Any) -> None:
        await asyncio.sleep(0.005)
        await queue.enqueue(Job("busy"))

    handlers: dict[str, Any] = {"busy": feed, "quiet": lambda job: None}
    await queue.enqueue_many([Job("busy") for _ in range(8)])
    async with running(worker_of(queue, handlers, poll=timedelta(milliseconds=200))):
        await until(lambda: started(connection))
        unheard = new_id()
        await connection.execute("insert into hammerwork.jobs (id, queue) values ($1, 'quiet')", unheard)
        async with asyncio.timeout(5):
            await until_final(queue, unheard)


async def started(connection: asyncpg.Connection) -> bool:
    return bool(await connection.fetchval("select exists (select from hammerwork.history)"))


async def test_long_jobs_that_end_together_are_not_held_back_from_others(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    await queue.enqueue_many([Job("orders", n) for n in range(200)])
    held = []

    async def long(job: Any) -> None:
        await asyncio.sleep(0.1)

    async def third_round() -> bool:
        held.append(await connection.fetchval("select count(*) from hammerwork.jobs where state = 'running'"))
        return bool(await connection.fetchval("select count(*) >= 24 from hammerwork.history"))

    async with running(worker_of(queue, {"orders": long}, concurrency=8)):
        await until(third_round)
    assert max(held) <= 16  # eight run, and eight may have ended without being settled


@both_servers
async def test_a_claim_is_not_planned_anew_where_postgres_knows_the_table(queue: Queue, worker: UUID) -> None:
    await queue.enqueue_many([Job("orders", "x" * 150) for _ in range(20_000)])
    async with queue.database.acquire() as connection:
        await connection.execute("analyze")
        text = statement("claim")
        for _ in range(20):
            columns = Floors().columns(Wanted({"orders": 100}, 100, 100), whole=True)
            await connection.fetch(text, *columns, 100, worker)
        (plans,) = await connection.fetch(
            "select generic_plans, custom_plans from pg_prepared_statements where statement = $1", text
        )
    assert (plans["generic_plans"], plans["custom_plans"]) == (15, 5)
