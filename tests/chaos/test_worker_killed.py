"""A worker that is killed, frozen or held up: its jobs run again, and their effects happen once."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest

from hammerwork.core.execute.running import RunningJob
from hammerwork.core.execute.worker import Worker
from hammerwork.core.postgres.database import Database
from hammerwork.core.queue import Queue
from hammerwork.core.upkeep import Upkeep

from ..claiming import claim
from .conftest import Spawn
from .ledger import Ledger, until
from .processes import Child
from .running import running
from .work import work, work_handlers

pytestmark = pytest.mark.chaos

LEASE = 2.0
SCAN = 3.0
"""Seconds that the rescue may take after a lease is over: its round of one second, and a slow machine."""


class Workers:
    """Starts worker processes on the test's database."""

    def __init__(self, spawn: Spawn, dsn: str) -> None:
        self._spawn = spawn
        self._dsn = dsn

    def start(self, *, concurrency: int = 8, upkeep: bool = False) -> Child:
        settings = {
            "CHAOS_DSN": self._dsn,
            "CHAOS_LEASE": str(LEASE),
            "CHAOS_CONCURRENCY": str(concurrency),
            "CHAOS_UPKEEP": "1" if upkeep else "0",
        }
        return self._spawn("worker_process", settings)


@pytest.fixture
def workers(spawn: Spawn, dsn: str) -> Workers:
    return Workers(spawn, dsn)


@pytest.fixture
async def upkeep(database: Database) -> AsyncIterator[None]:
    """The rescue, held by this process, so that no worker that dies has it."""
    async with running(Upkeep(database)):
        yield


def _survivor(queue: Queue, *, concurrency: int = 8) -> Worker:
    return Worker(
        queue,
        work_handlers(queue.database),
        concurrency=concurrency,
        lease=timedelta(seconds=LEASE),
        upkeep=False,
    )


async def _enqueue(queue: Queue, ledger: Ledger, ids: list[str], **how: object) -> None:
    await queue.enqueue_many(work(ids, **how))  # type: ignore[arg-type]
    ledger.acknowledged |= set(ids)


async def _started(ledger: Ledger) -> int:
    (row,) = await ledger.fetch("select count(*) from starts")
    return int(row[0])


async def _held(ledger: Ledger) -> set[str]:
    """The ids of the jobs that some worker runs at this moment."""
    rows = await ledger.fetch("select payload ->> 'id' from hammerwork.jobs where state = 'running'")
    return {row[0] for row in rows}


async def _all_completed(ledger: Ledger) -> bool:
    return await ledger.completed() == len(ledger.acknowledged)


async def test_the_jobs_of_a_killed_worker_are_rescued_in_time_and_have_one_effect(
    queue: Queue, ledger: Ledger, workers: Workers, upkeep: None
) -> None:
    victim = workers.start()
    await _enqueue(queue, ledger, [f"j{n}" for n in range(40)], seconds=0.5)
    await until(partial(_has_started, ledger, 20), 15, "the worker is in the middle of it")

    await victim.kill()
    held = await _held(ledger)
    assert held
    took = await until(lambda: _none_held(ledger), LEASE + SCAN, "its jobs are given back")
    async with running(_survivor(queue)):
        await until(lambda: _all_completed(ledger), 20, "every job is completed")

    await ledger.assert_clean(effects=True)
    lost = await ledger.fetch(
        "select payload ->> 'id' as id, attempts.attempt, attempts.error, history.attempt as final"
        " from hammerwork.attempts join hammerwork.history on history.id = job_id where cause = 'lost'"
    )
    assert lost
    assert {row["id"] for row in lost} <= held  # a COMMIT that was under way at the kill may still count
    assert all(row["attempt"] == 1 and row["final"] == 2 and "was lost" in row["error"] for row in lost)
    assert took <= LEASE + SCAN


async def test_workers_killed_again_and_again_at_random_finish_every_job_with_one_effect(
    queue: Queue, ledger: Ledger, workers: Workers
) -> None:
    dice = random.Random(20261124)
    await _enqueue(queue, ledger, [f"j{n}" for n in range(300)], seconds=0.1)
    crew = [workers.start(concurrency=4, upkeep=True) for _ in range(2)]
    for _ in range(6):
        wanted = await _started(ledger) + dice.randint(3, 20)
        await until(partial(_has_started, ledger, wanted), 20, "progress")
        number = dice.randrange(len(crew))
        await crew[number].kill()
        crew[number] = workers.start(concurrency=4, upkeep=True)

    # Whoever held the upkeep is dead, too: its duty has to pass over first.
    await until(lambda: _all_completed(ledger), 30, "every job is completed")
    for worker in crew:
        await worker.stop()
    await ledger.assert_clean(effects=True)


@pytest.mark.parametrize("how", ["block_inside", "block_return"])
async def test_a_worker_frozen_past_its_lease_changes_nothing_when_it_comes_back(
    queue: Queue, ledger: Ledger, workers: Workers, upkeep: None, how: str
) -> None:
    frozen = workers.start(concurrency=1)
    await _enqueue(queue, ledger, ["j0"], how=how, seconds=1.5)
    await until(partial(_has_started, ledger, 1), 15, "the handler runs")
    frozen.send(signal.SIGSTOP)
    await until(lambda: _none_held(ledger), LEASE + SCAN, "the job is given back")

    # The frozen worker holds the effect of its attempt in an open transaction all the while.
    async with running(_survivor(queue)):
        await until(lambda: _all_completed(ledger), 10, "somebody else has run it")
        before = await ledger.fetch("select * from hammerwork.history")
        frozen.send(signal.SIGCONT)
        await until(lambda: _says(frozen, "lease lost"), 10, "it learns that its lease is over")
    await frozen.stop()

    assert await ledger.fetch("select * from hammerwork.history") == before
    assert before[0]["attempt"] == 2
    effects = await ledger.fetch("select attempt from effects")
    assert [row["attempt"] for row in effects] == ([2] if how == "block_inside" else [])
    await ledger.assert_clean(effects=True)


async def test_a_frozen_worker_cannot_end_a_job_that_runs_elsewhere_meanwhile(
    queue: Queue, ledger: Ledger, workers: Workers, upkeep: None
) -> None:
    frozen = workers.start(concurrency=1)
    await _enqueue(queue, ledger, ["j0"], how="block_inside", seconds=1.5)
    await until(partial(_has_started, ledger, 1), 15, "the handler runs")
    frozen.send(signal.SIGSTOP)
    await until(lambda: _none_held(ledger), LEASE + SCAN, "the job is given back")

    second = workers.start(concurrency=1)
    await until(partial(_has_started, ledger, 2), 15, "it runs elsewhere")
    frozen.send(signal.SIGCONT)
    await until(lambda: _says(frozen, "lease lost"), 10, "it learns that its lease is over")
    await until(lambda: _all_completed(ledger), 10, "the second attempt completes")
    for worker in (frozen, second):
        await worker.stop()

    effects = await ledger.fetch("select attempt from effects")
    assert [row["attempt"] for row in effects] == [2]
    await ledger.assert_clean(effects=True)


async def test_a_handler_that_ends_before_it_hears_of_its_rescue_changes_nothing(
    queue: Queue, ledger: Ledger
) -> None:
    """Its heart beats every ten seconds only: nothing but the fence stands between it and the job."""
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def slow(job: RunningJob) -> None:
        async with job.transaction() as connection:
            await connection.execute("insert into effects values ('j0', $1, $2)", job.id, job.attempt)
            inside.set()
            await go_on.wait()

    stale = Worker(queue, {"work": slow}, lease=timedelta(seconds=30), upkeep=False)
    async with running(stale):
        await _enqueue(queue, ledger, ["j0"])
        await asyncio.wait_for(inside.wait(), 10)
        await ledger.fetch("update hammerwork.workers set heartbeat_at = now() - interval '1 minute'")
        await ledger.fetch("update hammerwork.workers set lease = interval '0.01 s'")
        assert await Upkeep(queue.database).rescue() == 1
        (row,) = await claim(queue.database, "work", await _register(queue))
        assert (row["attempt"], row["lease"]) == (2, 2)
        go_on.set()
        await until(lambda: _gave_up(stale), 10, "the first attempt has ended")
        assert await ledger.fetch("select from effects") == []
        assert await _held(ledger) == {"j0"}


async def test_a_handler_that_holds_up_its_event_loop_keeps_its_lease(
    queue: Queue, ledger: Ledger, workers: Workers, upkeep: None
) -> None:
    blocked = workers.start(concurrency=1)
    await _enqueue(queue, ledger, ["j0"], how="block", seconds=LEASE * 2.5)
    await until(partial(_has_started, ledger, 1), 15, "the handler runs")
    async with running(_survivor(queue)):
        await until(lambda: _all_completed(ledger), LEASE * 2.5 + 5, "the job is completed")
    await blocked.stop()

    assert await ledger.fetch("select from hammerwork.attempts") == []
    assert await _started(ledger) == 1
    await ledger.assert_clean(effects=True)


async def test_a_job_that_kills_its_workers_ends_as_a_dead_letter(
    queue: Queue, ledger: Ledger, workers: Workers, upkeep: None
) -> None:
    await _enqueue(queue, ledger, ["j0"], seconds=60, attempts=2)
    for attempt in (1, 2):
        worker = workers.start(concurrency=1)
        await until(partial(_has_started, ledger, attempt), 15, "it runs")
        await worker.kill()
        await until(lambda: _none_held(ledger), LEASE + SCAN, "the job is taken from the dead worker")

    (letter,) = await ledger.fetch("select reason, attempts, body from hammerwork.dead_letters")
    assert (letter["reason"], letter["attempts"]) == ("lost", 2)
    assert b'"id": "j0"' in letter["body"]
    await ledger.assert_clean()


async def _has_started(ledger: Ledger, wanted: int) -> bool:
    return await _started(ledger) >= wanted


async def _register(queue: Queue) -> UUID:
    """A worker that takes its time."""
    other = uuid4()
    await queue.database.fetch("register_worker", other, "elsewhere", 0, ["work"], 1, timedelta(minutes=1))
    return other


async def _gave_up(worker: Worker) -> bool:
    return worker.counts.ended["work", "lost"] == 1


async def _none_held(ledger: Ledger) -> bool:
    return not await _held(ledger)


async def _says(child: Child, words: str) -> bool:
    return words in child.output
