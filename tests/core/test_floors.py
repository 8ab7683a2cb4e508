"""Floors: claims begin where the last ones ended, and nothing that comes back before them is forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from hammerwork.core.execute.floors import WHOLE_LOOK_EVERY, Floors
from hammerwork.core.job import Job, Priority
from hammerwork.core.queue import Queue

from .running import both_servers, running, until, until_final, worker_of


async def claimed(queue: Queue, worker: UUID, floors: Floors, count: int, *, whole: bool) -> list[Any]:
    columns = floors.columns({"orders": count}, count, whole=whole)
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
        "update hammerwork.jobs set state = 'available', claimed_by = null where payload in ('0', '1')"
    )
    assert await claimed(queue, worker, floors, 1, whole=False) == ["4"]
    assert await claimed(queue, worker, floors, 1, whole=True) == ["0"]
    assert await claimed(queue, worker, floors, 2, whole=False) == ["1", "5"]


async def test_jobs_of_one_moment_are_told_apart_by_their_ids(
    queue: Queue, worker: UUID, connection: asyncpg.Connection
) -> None:
    await queue.enqueue_many([Job("orders", n) for n in range(100)])
    await connection.execute("update hammerwork.jobs set run_at = now()")
    floors = Floors()
    seen = [n for _ in range(10) for n in await claimed(queue, worker, floors, 10, whole=False)]
    assert seen == [str(n) for n in range(100)]


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


def test_a_dear_whole_look_is_a_rare_one() -> None:
    floors = Floors()
    assert floors.whole_look_due(rested=False)
    floors.claimed([], whole=True, seconds=0.0)
    assert floors.whole_look_due(rested=True)
    assert not floors.whole_look_due(rested=False)
    floors.claimed([], whole=True, seconds=10.0)
    assert not floors.whole_look_due(rested=True)


@both_servers
async def test_a_queue_with_a_limit_of_its_own_keeps_it_over_all_priorities(
    queue: Queue, worker: UUID
) -> None:
    await queue.enqueue_many([Job("orders", int(p), priority=p) for p in Priority for _ in range(3)])
    columns = Floors().columns({"orders": 2}, 2, whole=True)
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
    columns = Floors().columns(dict.fromkeys(names, 40), 3, whole=True)
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
