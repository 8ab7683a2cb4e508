"""One attempt: what a handler answers or does wrong, its time limit, its thread and its transaction."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import pytest

from hammerwork.core import operate
from hammerwork.core.execute.handlers import Handler, Handlers
from hammerwork.core.execute.running import RunningJob
from hammerwork.core.job import Cancel, Dead, Done, Job, JobState, Retry, Snooze
from hammerwork.core.queue import Queue
from hammerwork.core.retry import Custom, Exponential, Fixed

from .running import attempted, both_servers, ran, running, until, worker_of

SOON = Fixed(timedelta(0), jitter="none")


# --- outcomes -------------------------------------------------------------------------------------


@both_servers
async def test_done_completes_with_a_result(queue: Queue) -> None:
    job = Job("orders", {"n": 2})
    stored = await ran(queue, job, lambda job: Done({"square": job.payload["n"] ** 2}))
    assert (stored.state, stored.attempt, stored.lease) == (JobState.COMPLETED, 1, 1)
    assert stored.finished_at is not None
    assert await queue.result(job.id) == {"square": 4}
    assert await operate.attempts(queue.database, job.id) == []


@both_servers
async def test_retry_waits_as_long_as_it_says_and_records_the_attempt(queue: Queue) -> None:
    job = Job("orders")
    stored = await ran(queue, job, lambda job: Retry("rate limited", timedelta(hours=1)))
    assert (stored.state, stored.attempt, stored.error) == (JobState.SCHEDULED, 1, "rate limited")
    assert timedelta(minutes=59) < stored.run_at - datetime.now(UTC) < timedelta(minutes=61)
    assert (stored.claimed_by, stored.claimed_at) == (None, None)
    (attempt,) = await operate.attempts(queue.database, job.id)
    assert (attempt.attempt, attempt.lease, attempt.cause, attempt.error) == (1, 1, "failed", "rate limited")
    assert attempt.started_at is not None
    assert attempt.worker is not None


@both_servers
async def test_snooze_burns_no_attempt(queue: Queue) -> None:
    job = Job("orders", max_attempts=1)
    stored = await ran(queue, job, lambda job: Snooze(timedelta(hours=1)))
    assert (stored.state, stored.attempt, stored.lease) == (JobState.SCHEDULED, 0, 1)
    assert timedelta(minutes=59) < stored.run_at - datetime.now(UTC) < timedelta(minutes=61)
    assert await operate.attempts(queue.database, job.id) == []


@both_servers
async def test_cancel_ends_the_job_without_a_dead_letter(queue: Queue) -> None:
    stored = await ran(queue, Job("orders"), lambda job: Cancel("customer left"))
    assert (stored.state, stored.error) == (JobState.CANCELLED, "customer left")
    assert await operate.dead_letters(queue.database) == []


@both_servers
async def test_dead_gives_up_whatever_attempts_are_left(queue: Queue) -> None:
    job = Job("orders", {"n": 1}, headers={"tenant": "acme"})
    stored = await ran(queue, job, lambda job: Dead("no such customer"))
    assert (stored.state, stored.attempt, stored.error) == (JobState.DEAD, 1, "no such customer")
    (letter,) = await operate.dead_letters(queue.database)
    assert (letter.queue, letter.job_id, letter.reason) == ("orders", job.id, "gave_up")
    assert (letter.detail, letter.attempts, letter.bridge) == ("no such customer", 1, None)
    body = await operate.dead_letter(queue.database, letter.id)
    assert (json.loads(body.body), body.headers, body.whole) == ({"n": 1}, {"tenant": "acme"}, True)


async def test_any_json_value_is_short_for_done_and_none_for_no_result(queue: Queue) -> None:
    job = Job("orders")
    assert (await ran(queue, job, lambda job: [1, {"a": None}])).state is JobState.COMPLETED
    assert await queue.result(job.id) == [1, {"a": None}]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "the result is not JSON"),
        (float("nan"), "the result is not JSON"),
        ({"a": "\0"}, "the result holds a NUL"),
        ("\ud800", "the result is not JSON"),
        ("x" * 2_000, "the result has 2002 characters, more than the 1000 allowed"),
    ],
)
async def test_a_result_that_cannot_be_kept_makes_the_job_dead(queue: Queue, value: Any, said: str) -> None:
    # Trying again would do the work again and end the same.
    stored = await ran(queue, Job("orders"), lambda job: value, result_bytes=1_000)
    assert stored.state is JobState.DEAD
    assert stored.error is not None
    assert said in stored.error


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Retry(delay=timedelta.max), JobState.SCHEDULED),
        (Snooze(timedelta.max), JobState.SCHEDULED),
        (Retry("a\0b\ud800" + "x" * 100_000, delay=timedelta(hours=1)), JobState.SCHEDULED),
        (Dead("a\0b\ud800" + "x" * 100_000), JobState.DEAD),
        (Cancel("a\0b\ud800"), JobState.CANCELLED),
        (Retry(7, delay=timedelta(hours=1)), JobState.SCHEDULED),  # type: ignore[arg-type]
        (Dead(None), JobState.DEAD),  # type: ignore[arg-type]
        (Cancel({"why": 1}), JobState.CANCELLED),  # type: ignore[arg-type]
    ],
)
async def test_no_outcome_is_too_strange_to_be_stored(queue: Queue, outcome: Any, state: JobState) -> None:
    stored = await ran(queue, Job("orders"), lambda job: outcome)
    assert stored.state is state
    assert len(stored.error or "") <= 16_000


# --- what goes wrong ------------------------------------------------------------------------------


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("not even this")


def recurse() -> None:
    recurse()


def throw(error: BaseException) -> NoReturn:
    raise error


MISDEEDS = [
    pytest.param(lambda: throw(ValueError("no \0 such \ud800 thing")), "ValueError: no", id="exception"),
    pytest.param(lambda: throw(SystemExit(3)), "SystemExit: 3", id="sys.exit"),
    pytest.param(lambda: throw(KeyboardInterrupt()), "KeyboardInterrupt", id="ctrl-c"),
    pytest.param(lambda: throw(GeneratorExit()), "GeneratorExit", id="GeneratorExit"),
    pytest.param(lambda: throw(StopIteration(1)), "StopIteration", id="StopIteration"),
    pytest.param(lambda: throw(asyncio.CancelledError()), "CancelledError", id="CancelledError"),
    pytest.param(lambda: throw(concurrent.futures.CancelledError()), "CancelledError", id="its own future"),
    pytest.param(recurse, "RecursionError", id="recursion"),
    pytest.param(lambda: throw(Unprintable()), "Unprintable", id="unprintable"),
    pytest.param(lambda: throw(BaseExceptionGroup("two", [SystemExit(), ValueError()])), "two", id="group"),
    pytest.param(lambda: throw(TimeoutError("upstream")), "TimeoutError: upstream", id="its own time-out"),
]


@pytest.mark.parametrize("kind", ["async", "thread"])
@pytest.mark.parametrize(("misdeed", "said"), MISDEEDS)
async def test_whatever_a_handler_raises_is_a_failed_attempt_and_frees_its_slot(
    queue: Queue, misdeed: Callable[[], None], said: str, kind: str
) -> None:
    async def on_the_loop(job: RunningJob) -> None:
        if job.payload == "bad":
            misdeed()

    def in_a_thread(job: RunningJob) -> None:
        if job.payload == "bad":
            misdeed()

    handlers = Handlers()
    handler: Handler = on_the_loop if kind == "async" else in_a_thread
    handlers.add("orders", handler, retry=Fixed(timedelta(hours=1)))
    bad, good = Job("orders", "bad"), Job("orders", "good")
    worker = worker_of(queue, handlers, concurrency=1)
    async with running(worker):
        await queue.enqueue(bad)
        await until(lambda: attempted(queue, bad))
        await queue.enqueue(good)
        await until(lambda: attempted(queue, good))
    stored = await queue.get(bad.id)
    assert (stored.state, stored.attempt) == (JobState.SCHEDULED, 1)
    assert stored.error is not None
    assert said in stored.error
    (attempt,) = await operate.attempts(queue.database, bad.id)
    assert attempt.cause == "failed"
    assert attempt.traceback is not None
    assert "Traceback" in attempt.traceback or "group" in said or "two" in said
    assert (await queue.get(good.id)).state is JobState.COMPLETED
    assert worker.counts.running.total() == 0


@both_servers
async def test_used_up_attempts_end_in_a_dead_letter_with_all_of_them_recorded(queue: Queue) -> None:
    handlers = Handlers()

    @handlers.queue("orders", retry=SOON)
    async def handle(job: RunningJob) -> None:
        raise RuntimeError(f"attempt {job.attempt} of {job.max_attempts}")

    job = Job("orders", max_attempts=3)
    await queue.enqueue(job)
    async with running(worker_of(queue, handlers)):
        await until(lambda: attempted(queue, job))
    stored = await queue.get(job.id)
    assert (stored.state, stored.attempt) == (JobState.DEAD, 3)
    assert stored.error == "RuntimeError: attempt 3 of 3"
    attempts = await operate.attempts(queue.database, job.id)
    assert [(a.attempt, a.cause) for a in attempts] == [(n, "failed") for n in (1, 2, 3)]
    (letter,) = await operate.dead_letters(queue.database)
    assert (letter.reason, letter.attempts, letter.job_id) == ("failed", 3, job.id)


# --- retry strategies -----------------------------------------------------------------------------


@both_servers
async def test_a_jobs_own_strategy_is_stored_with_it_and_goes_before_the_routes(queue: Queue) -> None:
    own = Job("orders", retry=Fixed(timedelta(days=3), jitter="none"))
    stored = await ran(queue, own, lambda job: Retry("again"), retry=Fixed(timedelta(seconds=1)))
    assert timedelta(days=2, hours=23) < stored.run_at - datetime.now(UTC) <= timedelta(days=3)


async def test_without_one_of_its_own_a_job_waits_as_its_route_says(queue: Queue) -> None:
    route = Exponential(timedelta(hours=10), jitter="none", maximum=timedelta(days=5))
    stored = await ran(queue, Job("orders"), lambda job: Retry("again"), retry=route)
    assert timedelta(hours=9) < stored.run_at - datetime.now(UTC) <= timedelta(hours=10)


async def test_a_custom_strategy_is_called_by_its_name(queue: Queue) -> None:
    handlers = Handlers({"orders": lambda job: Retry("four")})
    seen: list[tuple[int, str]] = []

    @handlers.retry_strategy("patient")
    def patient(attempt: int, error: str) -> timedelta:
        seen.append((attempt, error))
        return timedelta(hours=5)

    job = Job("orders", retry=Custom("patient"))
    await queue.enqueue(job)
    async with running(worker_of(queue, handlers)):
        await until(lambda: attempted(queue, job))
    assert seen == [(1, "four")]
    stored = await queue.get(job.id)
    assert timedelta(hours=4) < stored.run_at - datetime.now(UTC) <= timedelta(hours=5)


@pytest.mark.parametrize("fault", [KeyError("oops"), None, "not a timedelta"])
async def test_a_strategy_that_fails_gives_way_to_the_default_and_is_named(queue: Queue, fault: Any) -> None:
    handlers = Handlers({"orders": lambda job: Retry("first")})

    @handlers.retry_strategy("broken")
    def broken(attempt: int, error: str) -> Any:
        if isinstance(fault, Exception):
            raise fault
        return fault

    job = Job("orders", retry=Custom("broken"))
    await queue.enqueue(job)
    async with running(worker_of(queue, handlers)):
        await until(lambda: attempted(queue, job))
    stored = await queue.get(job.id)
    assert stored.state is JobState.SCHEDULED
    assert stored.error is not None
    assert "first (and its retry strategy failed" in stored.error
    assert stored.run_at - datetime.now(UTC) < timedelta(seconds=2)


# --- time limits and threads ----------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["the job's", "the route's"])
async def test_an_attempt_past_its_time_is_cancelled_and_tried_again(queue: Queue, whose: str) -> None:
    cancelled = asyncio.Event()

    async def handle(job: RunningJob) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    limit = timedelta(milliseconds=30)
    own, route = (limit, timedelta(hours=1)) if whose == "the job's" else (None, limit)
    later = Fixed(timedelta(hours=1))
    stored = await ran(queue, Job("orders", timeout=own), handle, timeout=route, retry=later)
    assert cancelled.is_set()
    assert (stored.state, stored.error) == (JobState.SCHEDULED, "timed out after 0.03 s")
    (attempt,) = await operate.attempts(queue.database, stored.id)
    assert attempt.cause == "timed_out"


async def test_the_last_attempt_past_its_time_is_dead(queue: Queue) -> None:
    job = Job("orders", timeout=timedelta(milliseconds=20), max_attempts=1)
    stored = await ran(queue, job, lambda job: time.sleep(0.1))
    assert stored.state is JobState.DEAD
    (letter,) = await operate.dead_letters(queue.database)
    assert letter.reason == "timed_out"


async def test_a_plain_function_runs_in_a_thread_and_holds_nothing_up(queue: Queue) -> None:
    threads: set[int] = set()
    meeting = threading.Barrier(3)

    def handle(job: RunningJob) -> str:
        threads.add(threading.get_ident())
        meeting.wait(5)  # only passes when three run at once
        return threading.current_thread().name

    jobs = [Job("orders") for _ in range(3)]
    await queue.enqueue_many(jobs)
    async with running(worker_of(queue, {"orders": handle}, concurrency=3)):
        names = [await queue.result(job.id, timeout=timedelta(seconds=8)) for job in jobs]
    assert len(threads) == 3
    assert threading.get_ident() not in threads
    assert all(name.startswith("handler") for name in names)


async def test_a_function_in_a_thread_can_see_that_it_should_stop(queue: Queue) -> None:
    stopped = threading.Event()

    def handle(job: RunningJob) -> None:
        assert not job.stop_requested
        while not job.stop_requested:
            time.sleep(0.002)
        stopped.set()

    job = Job("orders", timeout=timedelta(milliseconds=30))
    await ran(queue, job, handle, retry=Fixed(timedelta(hours=1)))
    assert await asyncio.to_thread(stopped.wait, 5)


class Callables:
    async def __call__(self, job: RunningJob) -> str:
        return "called"


async def test_an_object_that_is_called_asynchronously_is_a_handler(queue: Queue) -> None:
    job = Job("orders")
    await ran(queue, job, Callables())
    assert await queue.result(job.id) == "called"
