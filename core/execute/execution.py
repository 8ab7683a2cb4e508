"""One attempt of one job: the handler is run, and whatever happens becomes a verdict to settle."""

from __future__ import annotations

import asyncio
import time
import traceback as tracebacks
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from typing import Any, assert_never, cast

import structlog

from ..errors import LeaseLost, Misconfigured
from ..identity import new_id, slot_of
from ..job import Cancel, Dead, Done, JobState, Json, Outcome, Retry, Snooze
from ..postgres import store
from ..postgres.database import Record
from ..postgres.store import Completion, Finish, Requeue, Verdict
from ..retry import LONGEST, RetryFunction, delay_after
from .handlers import DEFAULT_RETRY, Handler, Route
from .running import Interrupt, RunningJob

log = structlog.get_logger(__name__)

TRACEBACK_LINES = 50
ERROR_LENGTH = 4000

_DONE = Done()


async def run(
    job: RunningJob,
    route: Route,
    threads: Executor,
    functions: Mapping[str, RetryFunction],
    ended: Callable[[RunningJob, Verdict | None], None],
) -> None:
    """Run one attempt to its end and tell `ended` what is to be written. Never raises, whatever the handler
    does.

    None: nothing to write (the lease is lost, or the job's own transaction settled it). Whoever waits for
    this coroutine in another one would be closed by a GeneratorExit that a handler brings: make it a task.
    """
    if job.interrupted_by is not None:
        ended(job, interrupted(job))
        return
    job.started = time.monotonic()
    limit = job.timeout if job.timeout is not None else route.timeout
    trace = None
    cause: str | None = "failed"
    outcome: Outcome | None
    try:
        if limit is None:
            value = await _call(job, route, threads)
        else:
            async with asyncio.timeout(limit.total_seconds()):
                value = await _call(job, route, threads)
        outcome, cause = _outcome_of(value)
    except TimeoutError as error:
        # The limit's own time-out carries no text; the handler's own time-outs are failures like others.
        if limit is not None and time.monotonic() - job.started >= limit.total_seconds():
            outcome, cause = Retry(f"timed out after {limit.total_seconds():g} s"), "timed_out"
            job.interrupt(Interrupt.CANCEL_ASKED)
        else:
            outcome, trace = _failure(error)
    except LeaseLost:
        outcome = None
    except BaseException as error:
        # Also SystemExit, GeneratorExit and a CancelledError that nobody of ours caused: a handler must
        # not be able to take the worker or the slot with it.
        if isinstance(error, asyncio.CancelledError) and job.interrupted_by is not None:
            ended(job, interrupted(job))
            return
        outcome, trace = _failure(error)
    if outcome is None or job.settled:
        ended(job, None)
    else:
        ended(job, _verdict(job, route, outcome, cause, trace, functions))


def _call(job: RunningJob, route: Route, threads: Executor) -> Awaitable[Outcome | Json]:
    if not route.in_thread:
        return cast("Awaitable[Outcome | Json]", route.handler(job))
    job.enter_thread()
    return asyncio.get_running_loop().run_in_executor(threads, _in_thread, route.handler, job)


def _in_thread(handler: Handler, job: RunningJob) -> Any:
    try:
        return handler(job)
    except StopIteration as error:
        # A future refuses to carry this one, and its slot would wait for ever.
        raise RuntimeError("the handler raised StopIteration") from error


def _outcome_of(value: Outcome | Json) -> tuple[Outcome, str | None]:
    match value:
        case None:
            return _DONE, None
        case Retry():
            return value, "failed"
        case Done() | Snooze() | Cancel() | Dead():
            return value, None
        case _:
            return Done(value), None


def _failure(error: BaseException) -> tuple[Retry, str]:
    text = "".join(tracebacks.format_exception(error, limit=-TRACEBACK_LINES))
    return Retry(f"{type(error).__name__}: {_text_of(error)}"), text


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(it cannot be printed)"


def unreadable(row: Record, error: Exception) -> Finish:
    """The end of a claimed job of which no RunningJob can be made."""
    return Finish(
        id=row["id"],
        lease=row["lease"],
        state=JobState.DEAD,
        dead_letter_id=new_id(slot_of(row["id"])),
        cause="failed",
        error=clean(f"the stored job cannot be read: {error}"),
    )


def interrupted(job: RunningJob) -> Verdict | None:
    """What becomes of a job whose handler we cancelled."""
    if job.settled:
        return None
    match job.interrupted_by:
        case Interrupt.CANCEL_ASKED:
            return _finish(job, JobState.CANCELLED, error="cancelled while it ran")
        case Interrupt.WORKER_STOPS:
            return Requeue(id=job.id, lease=job.lease, kind="released")
        case Interrupt.LEASE_LOST | None:
            return None
        case _:
            assert_never(job.interrupted_by)


def _verdict(
    job: RunningJob,
    route: Route,
    outcome: Outcome,
    cause: str | None,
    trace: str | None,
    functions: Mapping[str, RetryFunction],
) -> Verdict:
    match outcome:
        case Done():
            return _done(job, route, outcome)
        case Cancel():
            return _finish(job, JobState.CANCELLED, error=outcome.reason or None)
        case Dead():
            return _finish(job, JobState.DEAD, error=outcome.reason)
        case Snooze():
            delay = min(outcome.delay, LONGEST)
            return Requeue(id=job.id, lease=job.lease, kind="snoozed", delay=delay)
        case Retry():
            return _retry(job, route, outcome, cause, trace, functions)
        case _:
            assert_never(outcome)


def _done(job: RunningJob, route: Route, outcome: Done) -> Verdict:
    if outcome.result is None:
        return Completion(job.id, job.lease, time.monotonic() - job.started, None)
    try:
        result = store.encode(outcome.result, "the result")
    except Misconfigured as error:
        return _finish(job, JobState.DEAD, cause="failed", error=str(error))
    if len(result) > route.result_bytes:
        reason = f"the result has {len(result)} characters, more than the {route.result_bytes} allowed"
        return _finish(job, JobState.DEAD, cause="failed", error=reason)
    return Completion(job.id, job.lease, time.monotonic() - job.started, result)


def _retry(
    job: RunningJob,
    route: Route,
    outcome: Retry,
    cause: str | None,
    trace: str | None,
    functions: Mapping[str, RetryFunction],
) -> Verdict:
    reason = clean(outcome.reason)
    if job.attempt >= job.max_attempts:
        return _finish(job, JobState.DEAD, cause=cause, error=reason, traceback=trace)
    delay = outcome.delay
    if delay is None:
        try:
            delay = delay_after(job.retry or route.retry, job.attempt, error=reason, functions=functions)
        except Exception as error:
            # Our own fault or the application's, not this job's: the default delay, and say so.
            reason = clean(f"{reason} (and its retry strategy failed: {error})")
            delay = delay_after(DEFAULT_RETRY, job.attempt)
    return Requeue(
        id=job.id,
        lease=job.lease,
        kind="retried",
        delay=min(delay, LONGEST),
        cause=cause,
        error=reason,
        traceback=clean(trace),
    )


def _finish(
    job: RunningJob,
    state: JobState,
    *,
    cause: str | None = None,
    error: str | None = None,
    traceback: str | None = None,
) -> Finish:
    return Finish(
        id=job.id,
        lease=job.lease,
        state=state,
        # A dead letter shares its job's slot, so that both are found in the same partition.
        dead_letter_id=new_id(slot_of(job.id)) if state is JobState.DEAD else job.id,
        cause=cause,
        error=clean(error),
        traceback=clean(traceback),
        seconds=time.monotonic() - job.started if job.started else None,
    )


def clean(text: object) -> Any:
    """Text that Postgres takes, of a bounded length: an error's text can hold anything, and a reason that
    a handler gives need not even be text."""
    if text is None:
        return None
    return str(text)[-ERROR_LENGTH * 4 :].replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
