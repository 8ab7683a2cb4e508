"""A worker's life: slots and limits, cancelling, stopping, a lost lease, and jobs it cannot read."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from hammerwork.core import operate
from hammerwork.core.errors import Misconfigured, StateConflict
from hammerwork.core.execute import floors
from hammerwork.core.execute.handlers import Handler, Handlers
from hammerwork.core.execute.running import RunningJob
from hammerwork.core.execute.worker import WorkerPool
from hammerwork.core.job import Job, JobState
from hammerwork.core.postgres.notifier import Notifier
from hammerwork.core.queue import Queue
from hammerwork.core.retry import Fixed

from .running import before, both_servers, running, scans_of, until, worker_of

PATIENT = {"poll": timedelta(minutes=5)}
"""A worker that would be late if it were not told, or did not know by itself."""


async def all_in(queue: Queue, jobs: list[Job], state: JobState) -> bool:
    async with queue.database.acquire() as connection:
        table = "history" if state.final else "jobs"
        found = await connection.fetchval(
            f"select count(*) from hammerwork.{table} where id = any($1) and state = $2",  # noqa: S608
            [job.id for job in jobs],
            state,
        )
    return bool(found == len(jobs))


class Gate:
    """A handler whose jobs wait until the gate is opened, and who says how many are inside."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.inside = 0
        self.cancelled = 0

    async def __call__(self, job: RunningJob) -> str:
        self.inside += 1
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "through"

    async def holds(self, count: int) -> None:
        async def reached() -> bool:
            return self.inside == count

        await until(reached)


# --- slots and limits -----------------------------------------------------------------------------


class Crowd:
    """A handler that counts how many of it run at once, in all and by queue."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: defaultdict[str, int] = defaultdict(int)
        self.ran = 0

    async def __call__(self, job: RunningJob) -> None:
        for name in (job.queue, "all"):
            self.now[name] += 1
            self.most[name] = max(self.most[name], self.now[name])
        await asyncio.sleep(0.001 * (job.payload % 4))
        self.now.subtract([job.queue, "all"])
        self.ran += 1


@both_servers
async def test_no_more_run_at_once_than_the_worker_and_each_queue_allow(queue: Queue) -> None:
    crowd, handlers = Crowd(), Handlers()
    handlers.add("orders", crowd)
    handlers.add("invoices", crowd, concurrency=2)
    handlers.add("mails", crowd, concurrency=1)
    jobs = [Job(("orders", "invoices", "mails")[n % 3], n) for n in range(300)]
    await queue.enqueue_many(jobs)
    async with running(worker_of(queue, handlers, concurrency=6)):
        await until(lambda: all_in(queue, jobs, JobState.COMPLETED), within=20)
    assert crowd.ran == 300
    assert crowd.most["all"] == 6
    assert (crowd.most["invoices"], crowd.most["mails"]) == (2, 1)


async def test_a_queue_with_a_limit_goes_on_as_soon_as_one_of_its_jobs_ends(queue: Queue) -> None:
    crowd, handlers = Crowd(), Handlers()
    handlers.add("mails", crowd, concurrency=1)
    handlers.add("orders", crowd)  # empty: that it has nothing says nothing about the other
    jobs = [Job("mails", n) for n in range(50)]
    await queue.enqueue_many(jobs)
    async with running(worker_of(queue, handlers, **PATIENT)):
        await until(lambda: all_in(queue, jobs, JobState.COMPLETED), within=10)
    assert crowd.most["mails"] == 1


async def test_a_full_worker_leaves_the_rest_to_others(queue: Queue) -> None:
    gate, jobs = Gate(), [Job("orders", n) for n in range(10)]
    await queue.enqueue_many(jobs)
    async with running(worker_of(queue, {"orders": gate}, concurrency=2, **PATIENT)):
        await gate.holds(2)
        async with running(worker_of(queue, {"orders": lambda job: "other"}, concurrency=2)):
            await until(lambda: finished(queue, 8))
        gate.opened.set()
    assert gate.inside == 2


async def finished(queue: Queue, count: int) -> bool:
    return len(await queue.jobs(state=JobState.COMPLETED, limit=100)) == count


TRICKLE = 400


async def test_a_worker_to_whom_jobs_trickle_looks_a_few_times_for_each(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy worker looks at the whole queue when the poll is due, and not again and again until it may.
    monkeypatch.setattr(floors, "WHOLE_LOOK_EVERY", 60.0)
    before_them = await scans_of("jobs", dsn)
    async with Queue(dsn) as queue, running(worker_of(queue, {"orders": lambda job: None}, **PATIENT)):
        jobs = [Job("orders", n) for n in range(TRICKLE)]
        for job in jobs:
            await queue.enqueue(job)
            await asyncio.sleep(0.005)
        await until(lambda: all_in(queue, jobs, JobState.COMPLETED))
    assert await scans_of("jobs", dsn) - before_them < 20 * TRICKLE


async def test_a_worker_leaves_queues_alone_for_which_it_has_no_handler(queue: Queue) -> None:
    mine, other = Job("orders"), Job("billing")
    await queue.enqueue_many([mine, other])
    async with running(worker_of(queue, {"orders": lambda job: None})):
        await until(lambda: all_in(queue, [mine], JobState.COMPLETED))
    assert (await queue.get(other.id)).attempt == 0


async def test_several_workers_run_and_stop_together(queue: Queue) -> None:
    jobs = [Job(("orders", "billing")[n % 2], n) for n in range(20)]
    await queue.enqueue_many(jobs)
    pool = WorkerPool(
        worker_of(queue, {"orders": lambda job: None}), worker_of(queue, {"billing": lambda job: None})
    )
    async with running(pool):
        await until(lambda: all_in(queue, jobs, JobState.COMPLETED))
    assert await operate.workers(queue.database) == []


def not_callable() -> Any:
    return "handle_order"


@pytest.mark.parametrize(
    ("handlers", "options", "said"),
    [
        ({}, {}, "needs a handler"),
        ({"orders": not_callable()}, {}, "not callable"),
        ({"Orders": lambda job: None}, {}, "queue name"),
        ({"orders": lambda job: None}, {"concurrency": 0}, "concurrency"),
    ],
)
async def test_a_worker_that_could_not_work_is_refused(
    queue: Queue, handlers: dict[str, Handler], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(Misconfigured, match=said):
        worker_of(queue, handlers, **options)


def test_handlers_are_registered_once_and_chosen_by_name() -> None:
    handlers = Handlers({"orders": lambda job: None, "billing": lambda job: None})
    with pytest.raises(Misconfigured, match="already"):
        handlers.add("orders", lambda job: None)
    assert set(handlers.only(["billing"])) == {"billing"}
    with pytest.raises(Misconfigured, match="no handler") as caught:
        handlers.only(["mails"])
    assert "billing" in caught.value.hint


async def test_without_a_schema_run_says_what_to_do(empty_dsn: str) -> None:
    async with Queue(empty_dsn) as queue:
        with pytest.raises(Misconfigured) as caught:
            await asyncio.wait_for(worker_of(queue, {"orders": lambda job: None}).run(), 10)
    assert "hammerwork migrate" in caught.value.hint


# --- cancelling what runs -------------------------------------------------------------------------


@both_servers
async def test_a_running_job_is_cancelled_where_it_runs(queue: Queue) -> None:
    gate, job = Gate(), Job("orders")
    await queue.enqueue(job)
    notifier = Notifier(queue.database)
    worker = worker_of(queue, {"orders": gate}, lease=timedelta(minutes=5), notifier=notifier)
    async with running(notifier), running(worker):
        await gate.holds(1)
        await until(lambda: hears(notifier))
        assert await queue.cancel(job.id, "not wanted") is JobState.RUNNING
        await until(lambda: all_in(queue, [job], JobState.CANCELLED))
    assert gate.cancelled == 1
    with pytest.raises(StateConflict):
        await queue.cancel(job.id)


async def hears(notifier: Notifier) -> bool:
    return notifier.hears


async def test_a_running_job_is_cancelled_even_when_no_word_arrives(queue: Queue) -> None:
    gate, job = Gate(), Job("orders")
    await queue.enqueue(job)
    async with running(worker_of(queue, {"orders": gate}, lease=timedelta(seconds=0.6))):
        await gate.holds(1)
        await queue.database.fetch("cancel", [job.id], "not wanted")  # without the NOTIFY of operate.cancel
        await until(lambda: all_in(queue, [job], JobState.CANCELLED))
    assert gate.cancelled == 1


async def test_a_cancellation_from_before_the_worker_listens_is_found_when_it_does(queue: Queue) -> None:
    gate, job = Gate(), Job("orders")
    await queue.enqueue(job)
    notifier = Notifier(queue.database)
    worker = worker_of(queue, {"orders": gate}, lease=timedelta(minutes=5), notifier=notifier)
    async with running(worker):
        await gate.holds(1)
        await queue.cancel(job.id)
        async with running(notifier):
            await until(lambda: all_in(queue, [job], JobState.CANCELLED))
    assert gate.cancelled == 1


async def test_a_function_in_a_thread_is_told_and_its_job_cancelled(queue: Queue) -> None:
    inside, stopped = threading.Event(), threading.Event()

    def handle(job: RunningJob) -> None:
        inside.set()
        while not job.stop_requested:
            time.sleep(0.002)
        stopped.set()

    job = Job("orders")
    await queue.enqueue(job)
    async with running(worker_of(queue, {"orders": handle})):
        assert await asyncio.to_thread(inside.wait, 5)
        await queue.cancel(job.id)
        await until(lambda: all_in(queue, [job], JobState.CANCELLED))
    assert await asyncio.to_thread(stopped.wait, 5)


async def test_a_job_that_fails_while_its_cancellation_is_asked_for_is_not_tried_again(queue: Queue) -> None:
    inside = asyncio.Event()

    async def handle(job: RunningJob) -> None:
        inside.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise RuntimeError("the clean-up failed") from None

    job = Job("orders", retry=Fixed(timedelta(0)))
    await queue.enqueue(job)
    async with running(worker_of(queue, {"orders": handle})):
        await before(inside)
        await queue.cancel(job.id, "not wanted")
        await until(lambda: all_in(queue, [job], JobState.CANCELLED))
    assert (await queue.get(job.id)).attempt == 1


# --- stopping -------------------------------------------------------------------------------------


async def quick_then(queue: Queue, gate: Gate, *, blocking: int) -> tuple[Handler, list[Job]]:
    """A handler that is quick for the first jobs, so that the worker claims ahead, and then waits."""

    async def handle(job: RunningJob) -> Any:
        return await gate(job) if job.payload == "wait" else None

    await queue.enqueue_many([Job("orders", "quick") for _ in range(800)])
    waiting = [Job("orders", "wait") for _ in range(blocking)]
    await queue.enqueue_many(waiting)
    return handle, waiting


@both_servers
async def test_stop_hands_back_what_has_not_started_and_waits_for_what_runs(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hammerwork.core.execute.roster.PREFETCH_SECONDS", 0.1)  # on slow machines too
    gate = Gate()
    handle, jobs = await quick_then(queue, gate, blocking=300)
    worker = worker_of(queue, {"orders": handle}, concurrency=2)
    async with running(worker) as run:
        await gate.holds(2)
        assert len(await queue.jobs(state=JobState.RUNNING, limit=400)) > 2  # it claimed ahead
        worker.stop()
        await until(lambda: all_running(queue, 2))
        assert not run.done()
        gate.opened.set()
        await asyncio.wait_for(asyncio.shield(run), 10)
    stored = [await queue.get(job.id) for job in jobs]
    assert Counter(job.state for job in stored) == {"completed": 2, "available": 298}
    assert {job.attempt for job in stored if job.state is JobState.AVAILABLE} == {0}
    handed_back = [job for job in stored if job.lease > 0 and job.state is JobState.AVAILABLE]
    assert handed_back
    assert gate.cancelled == 0
    assert await operate.workers(queue.database) == []


async def all_running(queue: Queue, count: int) -> bool:
    return len(await queue.jobs(state=JobState.RUNNING, limit=400)) == count


async def test_quick_handlers_on_a_deep_queue_do_not_outrun_a_stop(queue: Queue) -> None:
    await queue.enqueue_many([Job("deep") for _ in range(60_000)])
    ran = 0

    async def count(_job: RunningJob) -> None:
        nonlocal ran
        ran += 1
        if ran == 10_000:
            worker.stop()

    worker = worker_of(queue, {"deep": count}, concurrency=500)
    async with asyncio.timeout(60):
        await worker.run()
    (stats,) = await queue.stats()
    assert stats.running == 0
    assert stats.available > 45_000


async def test_a_second_stop_hurries_and_burns_no_attempt(queue: Queue) -> None:
    gate, jobs = Gate(), [Job("orders", max_attempts=1) for _ in range(3)]
    await queue.enqueue_many(jobs)
    worker = worker_of(queue, {"orders": gate})
    async with running(worker) as run:
        await gate.holds(3)
        worker.stop()
        worker.stop()
        await asyncio.wait_for(asyncio.shield(run), 5)
    assert gate.cancelled == 3
    for job in jobs:
        stored = await queue.get(job.id)
        assert (stored.state, stored.attempt, stored.claimed_by) == (JobState.AVAILABLE, 0, None)


async def draining(queue: Queue) -> bool:
    return [worker.state for worker in await operate.workers(queue.database)] == ["draining"]


async def test_after_its_drain_time_a_worker_hurries_by_itself(queue: Queue) -> None:
    gate, job = Gate(), Job("orders")
    await queue.enqueue(job)
    worker = worker_of(
        queue, {"orders": gate}, drain=timedelta(milliseconds=700), lease=timedelta(seconds=0.6)
    )
    async with running(worker) as run:
        await gate.holds(1)
        worker.stop()
        await until(lambda: draining(queue))
        await asyncio.wait_for(asyncio.shield(run), 5)
    assert (gate.cancelled, (await queue.get(job.id)).state) == (1, JobState.AVAILABLE)


@pytest.mark.parametrize("ticks", range(6))
async def test_a_worker_whose_task_is_cancelled_ends_and_leaves_no_handler_running(
    queue: Queue, ticks: int
) -> None:
    gate, job = Gate(), Job("orders")
    await queue.enqueue(job)
    worker = worker_of(queue, {"orders": gate})
    run = asyncio.create_task(worker.run())
    await gate.holds(1)
    await queue.enqueue(Job("orders"))  # wakes it while it is being cancelled
    for _ in range(ticks):
        await asyncio.sleep(0)
    run.cancel()
    done, _ = await asyncio.wait([run], timeout=10)
    assert done
    assert run.cancelled()
    assert gate.cancelled == gate.inside
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("job ")]


async def test_an_idle_worker_stops_at_once(queue: Queue) -> None:
    worker = worker_of(queue, {"orders": lambda job: None}, **PATIENT)
    async with running(worker, within=5):
        await until(lambda: registered(queue))
    worker.stop()


async def registered(queue: Queue) -> bool:
    return len(await operate.workers(queue.database)) == 1


# --- the lease ------------------------------------------------------------------------------------


async def test_a_worker_says_what_it_is_and_keeps_beating(queue: Queue) -> None:
    handlers: dict[str, Handler] = {"orders": lambda job: None, "billing": lambda job: None}
    async with running(worker_of(queue, handlers, concurrency=3, lease=timedelta(seconds=0.6))):
        await until(lambda: registered(queue))
        (first,) = await operate.workers(queue.database)

        async def beaten() -> bool:
            (now,) = await operate.workers(queue.database)
            return now.heartbeat_at > first.heartbeat_at

        await until(beaten)
    assert (first.queues, first.concurrency, first.state) == (["billing", "orders"], 3, "running")
    assert (first.lease, first.lost) == (timedelta(seconds=0.6), False)


async def test_a_worker_that_was_given_up_stops_its_handlers_and_begins_a_new_life(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    gate, job = Gate(), Job("orders", "first")
    await queue.enqueue(job)
    async with running(worker_of(queue, {"orders": gate}, lease=timedelta(seconds=0.6))):
        await gate.holds(1)
        (before_it,) = await operate.workers(queue.database)
        # What a rescue does with a worker that it takes for dead.
        await connection.execute(
            "begin; delete from hammerwork.workers;"
            "update hammerwork.jobs set state = 'available', claimed_by = null; commit"
        )
        await gate.holds(2)
        (after_it,) = await operate.workers(queue.database)
        gate.opened.set()
        await until(lambda: all_in(queue, [job], JobState.COMPLETED))
    assert after_it.id != before_it.id
    assert gate.cancelled == 1
    stored = await queue.get(job.id)
    assert (stored.lease, stored.attempt) == (2, 2)


# --- jobs that cannot be read ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "retry",
    ['{"strategy": "lunar", "phase": 3}', "[]", '"soon"', "7", '{"strategy": "fixed", "delay": 1e300}'],
)
async def test_a_stored_strategy_that_is_unknown_gives_way_to_the_routes(
    queue: Queue, connection: asyncpg.Connection, retry: str
) -> None:
    job = Job("orders")
    await queue.enqueue(job)
    await connection.execute("update hammerwork.jobs set retry = $1::text::jsonb", retry)
    async with running(worker_of(queue, {"orders": lambda job: "fine"})):
        assert await queue.result(job.id, timeout=timedelta(seconds=5)) == "fine"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("context", "[1]"),
        ("context", '"text"'),
        ("payload", "1" * 5_000),  # more digits than Python reads
        ("payload", "[" * 3_000 + "]" * 3_000),  # deeper than Python reads
        ("origin", "1" * 5_000),
    ],
)
async def test_a_job_that_cannot_be_read_is_dead_and_the_worker_goes_on(
    queue: Queue, connection: asyncpg.Connection, column: str, value: str
) -> None:
    good, bad = [Job("orders") for _ in range(4)], Job("orders")
    await queue.enqueue_many([*good[:2], bad, *good[2:]])
    await connection.execute(
        f"update hammerwork.jobs set {column} = $2::text::jsonb where id = $1",  # noqa: S608
        bad.id,
        value,
    )
    worker = worker_of(queue, {"orders": lambda job: None})
    async with running(worker):
        await until(lambda: all_in(queue, good, JobState.COMPLETED))
        await until(lambda: all_in(queue, [bad], JobState.DEAD))
    (letter,) = await operate.dead_letters(queue.database)
    assert letter.job_id == bad.id
    assert "cannot be read" in letter.detail
    assert worker.counts.running.total() == 0
