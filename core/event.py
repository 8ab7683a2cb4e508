"""Event: what happened to a job, written in the transaction that changed it; and Sink, the seam of
destinations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal, Protocol
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
