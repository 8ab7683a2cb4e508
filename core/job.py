"""Job: what an application asks for, what is stored of it, and what a handler may answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import Any
from uuid import UUID

from .errors import Misconfigured
from .identity import new_id
from .retry import RetryStrategy

Json = Any
"""A JSON value: None, bool, int, float, str, list or dict with string keys."""

QUEUE_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
"""Queue, bridge and sink names: lower case, at most 63 characters, safe in logs, URLs and metrics."""

SINK_QUEUE_PREFIX = "sink."
"""Queues whose jobs are deliveries of events. Their own lifecycle writes no events, or there would be
an event about every delivery of an event, for ever."""

DEFAULT_MAX_ATTEMPTS = 5
DEFAULT_RESULT_TTL = timedelta(days=1)


class Priority(IntEnum):
    """Higher is claimed first; a queue is strictly ordered by priority, then run_at."""

    BACKGROUND = 0
    LOW = 1
    NORMAL = 2
    HIGH = 3
    CRITICAL = 4


class JobState(StrEnum):
    """Where a job is in its life; the last three are final."""

    BLOCKED = "blocked"
    SCHEDULED = "scheduled"
    AVAILABLE = "available"
    RUNNING = "running"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    DEAD = "dead"

    @property
    def final(self) -> bool:
        return self in (JobState.COMPLETED, JobState.CANCELLED, JobState.DEAD)


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work to enqueue. It is data only; nothing happens until `Queue.enqueue`.

    `run_at` (timezone-aware) and `delay` exclude each other; without either the job is due at once.
    `timeout` ends one attempt, `max_attempts` counts attempts that started, `retry` overrides the
    worker's strategy and is stored with the job. `traceparent`/`tracestate` are W3C Trace Context.
    Raises Misconfigured for a bad name, range or combination.
    """

    queue: str
    payload: Json = None
    _: KW_ONLY
    id: UUID = field(default_factory=new_id)
    priority: Priority = Priority.NORMAL
    run_at: datetime | None = None
    delay: timedelta | None = None
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    timeout: timedelta | None = None
    retry: RetryStrategy | None = None
    result_ttl: timedelta = DEFAULT_RESULT_TTL
    correlation_id: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    headers: Mapping[str, Json] = field(default_factory=dict)
    origin: Mapping[str, Json] | None = None
    """Where the job came from: the bridge, the message's id and its coordinates at the broker."""

    def __post_init__(self) -> None:
        check_name("queue", self.queue)
        if not isinstance(self.id, UUID):
            raise Misconfigured(f"the id must be a UUID, not {self.id!r}")
        if not isinstance(self.result_ttl, timedelta):
            raise Misconfigured(f"result_ttl must be a timedelta, not {self.result_ttl!r}")
        if self.run_at is not None and self.delay is not None:
            raise Misconfigured("a job takes run_at or delay, not both")
        if self.run_at is not None and self.run_at.tzinfo is None:
            raise Misconfigured("run_at must be timezone-aware", hint="datetime.now(UTC) + …")
        if not 1 <= self.max_attempts <= 32_767:
            raise Misconfigured(f"max_attempts must be 1 to 32767, not {self.max_attempts}")
        if self.timeout is not None and self.timeout <= timedelta(0):
            raise Misconfigured("timeout must be longer than nothing")
        if self.delay is not None and self.delay < timedelta(0):
            raise Misconfigured("delay must not be negative")


@lru_cache(maxsize=1024)
def _fits(name: str) -> bool:
    return QUEUE_NAME.fullmatch(name) is not None


def check_name(kind: str, name: str) -> str:
    """`name` itself when it may name a queue, bridge or sink; else raises Misconfigured."""
    if not _fits(name):
        raise Misconfigured(
            f"{kind} name {name[:80]!r} is not allowed",
            hint="use 1 to 63 of a-z 0-9 _ . - and begin with a letter",
        )
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job as it is stored at this moment, live or finished."""

    id: UUID
    queue: str
    state: JobState
    payload: Json
    priority: Priority
    run_at: datetime
    attempt: int
    max_attempts: int
    lease: int
    correlation_id: str | None
    headers: Mapping[str, Json]
    origin: Mapping[str, Json] | None
    traceparent: str | None
    created_at: datetime
    claimed_at: datetime | None
    claimed_by: UUID | None
    finished_at: datetime | None
    error: str | None
    """The last failure's text, for a job that is dead, cancelled or waits for another attempt."""


# --- outcomes: what a handler answers; matched once, in core/execute/execution.py -------------------------


@dataclass(frozen=True, slots=True)
class Done:
    """The job is completed; `result` (JSON) is kept for the job's result_ttl when it is not None."""

    result: Json = None


@dataclass(frozen=True, slots=True)
class Retry:
    """This attempt failed; try again after `delay`, or after what the retry strategy says.

    When no attempt is left the job is dead.
    """

    reason: str = ""
    delay: timedelta | None = None

    def __post_init__(self) -> None:
        if self.delay is not None:
            _check_delay(self.delay)


@dataclass(frozen=True, slots=True)
class Snooze:
    """Not now: run again after `delay`, without burning an attempt."""

    delay: timedelta

    def __post_init__(self) -> None:
        _check_delay(self.delay)


def _check_delay(delay: object) -> None:
    """Raise in the handler, whose fault it is, and not at the settle of a whole batch."""
    if not isinstance(delay, timedelta):
        raise Misconfigured(f"the delay of an outcome must be a timedelta, not {delay!r}")


@dataclass(frozen=True, slots=True)
class Cancel:
    """The job is not wanted any more."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Dead:
    """Trying again cannot help: a dead letter with this reason, whatever attempts are left."""

    reason: str


Outcome = Done | Retry | Snooze | Cancel | Dead
