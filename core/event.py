"""Event: what happened to a job, written in the transaction that changed it; and Sink and LogSink, the seams
of destinations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache, lru_cache
from typing import Literal, NamedTuple, Protocol, runtime_checkable
from uuid import UUID

from .job import Json, Outcome
from .message import Guarantee


class EventType(StrEnum):
    """Every event that the house writes. `failed` is one attempt; `retried` says that another follows."""

    ENQUEUED = "job.enqueued"
    STARTED = "job.started"
    COMPLETED = "job.completed"
    FAILED = "job.failed"
    RETRIED = "job.retried"
    SNOOZED = "job.snoozed"
    TIMED_OUT = "job.timed_out"
    DEAD = "job.dead"
    CANCELLED = "job.cancelled"
    MESSAGE_DEAD_LETTERED = "message.dead_lettered"
    SINK_DISABLED = "sink.disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row of the event log. `sequence` rises by one with every change of the same job, whether or
    not the change's type is wanted by a sink, so a consumer orders by (job_id, sequence)."""

    id: UUID
    type: EventType
    job_id: UUID | None
    sequence: int
    queue: str | None
    at: datetime
    data: Mapping[str, Json]

    def cloud_event(self, source: str) -> dict[str, Json]:
        """The event as a CloudEvents 1.0 JSON object (structured mode).

        `sequence` is the Sequence extension (zero-padded so that it sorts as text), `partitionkey`
        the Partitioning extension: the job id.
        """
        envelope: dict[str, Json] = {
            "specversion": "1.0",
            "id": str(self.id),
            "source": source,
            "type": f"dev.hammerwork.{self.type}",
            "time": self.at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "sequence": f"{self.sequence:010d}",
            "data": {"job_id": str(self.job_id) if self.job_id else None, "queue": self.queue, **self.data},
        }
        if self.job_id is not None:
            envelope["subject"] = str(self.job_id)
            envelope["partitionkey"] = str(self.job_id)
        return envelope


class LoggedEvent(NamedTuple):
    """An event as the log has it, for sinks that read the log: `text` is its data as JSON, so that who only
    hands it on need not parse it. A tuple, because one is made of every row."""

    log_id: int
    xid: str
    """Where it stands in the log: (xid, log_id)."""
    id: UUID
    job_id: UUID | None
    sequence: int
    type: str
    queue: str | None
    text: str
    at: datetime
    """In UTC."""
    again: bool
    """A copy of an earlier event, which is sent again."""
    source: str
    """The `source` of its CloudEvent."""

    @property
    def data(self) -> Mapping[str, Json]:
        """Parsed anew at each use."""
        found: Mapping[str, Json] = json.loads(self.text)
        return found

    @property
    def time(self) -> str:
        """RFC 3339, in UTC."""
        second, fraction = _second(int(self.at.timestamp())), self.at.microsecond
        return f"{second}.{fraction:06d}Z" if fraction else f"{second}Z"

    def attributes(self) -> dict[str, str]:
        """The attributes of its CloudEvent, but for `datacontenttype`, which is application/json."""
        found = {
            "specversion": "1.0",
            "id": str(self.id),
            "source": self.source,
            "type": f"dev.hammerwork.{self.type}",
            "time": self.time,
            "sequence": f"{self.sequence:010d}",
        }
        if self.job_id is not None:
            found["subject"] = found["partitionkey"] = str(self.job_id)
        return found

    def body(self) -> str:
        """The `data` of its CloudEvent, as JSON text."""
        job = f'"{self.job_id}"' if self.job_id else "null"
        queue = f'"{self.queue}"' if self.queue else "null"  # a queue's name needs no escapes
        rest = "}" if self.text == "{}" else f",{self.text[1:]}"
        return f'{{"job_id":{job},"queue":{queue}{rest}'

    def cloud_event(self) -> str:
        """As `Event.cloud_event`, in JSON text."""
        about = ""
        if self.job_id is not None:
            job = str(self.job_id)
            about = f',"subject":"{job}","partitionkey":"{job}"'
        return (
            f'{{"specversion":"1.0","id":"{self.id}","source":{_quoted(self.source)},'
            f'"type":"dev.hammerwork.{self.type}","time":"{self.time}","datacontenttype":"application/json",'
            f'"sequence":"{self.sequence:010d}"{about},"data":{self.body()}}}'
        )


@lru_cache(maxsize=64)
def _second(timestamp: int) -> str:
    """The start of an RFC 3339 time in UTC. Thousands of events share it."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat().removesuffix("+00:00")


@cache
def _quoted(text: str) -> str:
    return json.dumps(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt:
    """One try to deliver one event: what a sink is given."""

    event_id: str
    cloud_event: Mapping[str, Json]
    attempt: int
    """1 for the first try of this event; the event's id stays the same over all of them."""
    text: str | None = None
    """`cloud_event` as JSON text, where it is at hand: who sends the whole of it need not make it anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkCapabilities:
    """What a type of sink and its destination can do, said by its class attribute `capabilities`.

    It is what `hammerwork plugins show` prints, and which tests of `hammerwork.plugins.conformance` must
    hold.
    """

    batches: bool = False
    """Events are sent several at once, and answered one by one."""
    order: Literal["none", "key"] = "none"
    """Whether the events of a job arrive in their order, also when some of them are tried again."""
    identity: bool = True
    """The destination is told the event's id, the same on every try, and can drop repetitions by it."""
    refuses: bool = False
    """The destination can say of one event that it will never take it."""
    largest: int | None = None
    """Bytes of the largest event that the destination takes; None where there is no such limit."""


class Sink(Protocol):
    """A destination that takes events one by one, each as a durable job on the queue `sink.<name>`.

    The framework calls `open`, then `deliver` concurrently up to the sink's concurrency, then `close`.
    `deliver` answers an Outcome: Done (taken), Retry (with the destination's own delay where it named
    one), Dead (this event will never be taken), Snooze (our own fault or limit: burns no attempt). The
    framework owns persistence, retries, dead letters, ordering and the delivery log.
    """

    name: str

    async def open(self) -> None: ...

    async def deliver(self, attempt: DeliveryAttempt) -> DeliveryReport: ...

    async def close(self) -> None: ...

    async def guarantee(self) -> Guarantee: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """What came of one try: the outcome that decides what happens next, and what the log keeps."""

    outcome: Outcome
    status: int | None = None
    """The HTTP status, where there was one."""
    error: str | None = None
    """A class of error (`timeout`, `tls`, `refused_address`, …), never a secret or a banner."""
    duration: float = 0.0
    """Seconds."""
    response: str = ""
    """The start of the response body."""
    disable: str | None = None
    """A reason to disable the sink for good (HTTP 410), until an operator resumes it."""


@runtime_checkable
class LogSink(Protocol):
    """A destination that keeps a log itself (Kafka, Kinesis) and takes events in batches, straight from the
    event log and in its order, instead of one by one as jobs.

    The framework calls, one call at a time and in this order: `open`, then `send` again and again, then
    `close`; one process at a time. The same object is opened again after a `close`. It owns the position in
    the event log, which moves when every event up to it was taken or has become a dead letter; what is
    tried again, and when; and dead letters. So a sink has no retry loop of its own but what its client does
    within one call, and never sees Postgres.

    Raise `Disconnected` from `open` or `send` when the destination is gone or what became of a batch is not
    known: the framework closes, backs off, opens again and sends the whole batch again. Raise `Misconfigured`
    when trying again cannot help (wrong password, missing stream): the sink is held with that reason, nothing
    is lost, and it is opened again at a slow pace. Any other exception is taken as `Disconnected` and logged
    with its trace. A call that takes longer than 20 seconds is cancelled, and then counts as `Disconnected`.
    """

    name: str

    async def open(self) -> str | None:
        """Connect. A sink that stores each batch's mark with it answers the last one that it stored; the
        framework goes on behind it. None: there is none, the framework's own position counts."""
        ...

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        """Hand over a batch; one outcome an event, in their order.

        Done: taken for good. Retry: not taken; it is sent again, before anything later. Snooze: not tried.
        Dead: it will never be taken; the reason is `code: detail` (`too_large: 1200000 bytes`). Where an
        event is not taken, no later one of the same job may be: answer Snooze for it.

        `mark` names the place in the event log behind this batch. A sink that keeps it must store it and
        the events together or not at all, so its outcomes are Done for all or for none: while one of them
        is Dead, the others are snoozed and come again without it.
        """
        ...

    async def close(self) -> None:
        """Disconnect. Idempotent, bounded in time, never raises for a destination that is already gone."""
        ...

    async def guarantee(self) -> Guarantee:
        """Connect on its own, look at the destination, and say what holds. Used by `check`."""
        ...


@runtime_checkable
class SharedLogSink(LogSink, Protocol):
    """A log sink that keeps something at its destination under a name of its own (a transactional id, a
    position), where other deployments may have a sink of the same name."""

    def belong_to(self, deployment: str) -> None:
        """Called before each `open`: which deployment (which database with its schema) this is. It stays the
        same through failovers and restores. Whatever name of its own the sink takes holds this."""
        ...


AnySink = Sink | LogSink
