"""What the API takes and answers, as pydantic models; the command line's --json prints the same."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from ...core.errors import BadMessage
from ...core.identity import new_id
from ...core.ingest.fields import FARTHEST, MAX_CORRELATION_ID, carried_headers, read_run_at
from ...core.job import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_RESULT_TTL,
    QUEUE_NAME,
    SINK_QUEUE_PREFIX,
    Job,
    JobState,
    Json,
    Priority,
)
from ...core.operate import DeadLetterBody
from ...core.queue import Enqueued
from ..spans import read_span

Item = TypeVar("Item", bound=BaseModel)

NAME_PATTERN = f"^{QUEUE_NAME.pattern}$"
NO_NUL_PATTERN = "^[^\\x00]*$"
MOST_JOBS = 1000


class Request(BaseModel):
    """What a caller sends: unknown fields are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, ser_json_timedelta="float"
    )


class Reply(BaseModel):
    """What a caller gets, read from the core's dataclasses by name. Spans are seconds."""

    model_config = ConfigDict(from_attributes=True, frozen=True, ser_json_timedelta="float")


# --- fields --------------------------------------------------------------------------------------


def _seconds(value: object) -> object:
    match value:
        case bool():
            raise ValueError("must be a number of seconds or a duration such as 30s")
        case int() | float():
            return read_span(str(value)) if 0 <= value <= FARTHEST.total_seconds() else _too_far()
        case str():
            return read_span(value)
        case _:
            return value


def _too_far() -> object:
    raise ValueError("must be 0 seconds to ten years")


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than nothing")
    return value


def _soon_enough(value: datetime) -> datetime:
    try:
        return read_run_at(value)
    except BadMessage as error:
        raise ValueError(error.detail) from error


def _no_sink_queue(value: str) -> str:
    if value.startswith(SINK_QUEUE_PREFIX):
        raise ValueError(f"must not begin with {SINK_QUEUE_PREFIX}: those jobs are deliveries of events")
    return value


def _storable_headers(value: Mapping[str, Json]) -> Mapping[str, Json]:
    try:
        return carried_headers(value)
    except BadMessage as error:
        raise ValueError(error.detail) from error


_SPAN_SCHEMA = {
    "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": "^([0-9.]+(ms|s|m|h|d|w)?)+$"}],
    "description": "seconds, or text such as 30s or 1h30m",
}

Span = Annotated[timedelta, BeforeValidator(_seconds), WithJsonSchema(_SPAN_SCHEMA, mode="validation")]
PriorityName = Literal["background", "low", "normal", "high", "critical"]
PriorityWord = Annotated[Priority, PlainSerializer(lambda p: p.name.lower(), return_type=PriorityName)]
QueueName = Annotated[str, Field(pattern=NAME_PATTERN)]
JobQueueName = Annotated[QueueName, AfterValidator(_no_sink_queue)]
NoNul = Annotated[str, Field(pattern=NO_NUL_PATTERN)]
CorrelationId = Annotated[NoNul, Field(max_length=MAX_CORRELATION_ID)]


# --- what callers send ---------------------------------------------------------------------------


class JobRequest(Request):
    """A job to enqueue. `run_at` and `delay` exclude each other."""

    queue: JobQueueName
    payload: Any = None
    id: UUID | None = Field(None, description="client-made; a UUIDv7 keeps lists in order of time")
    priority: PriorityName = "normal"
    run_at: Annotated[datetime, AfterValidator(_soon_enough)] | None = None
    delay: Span | None = None
    max_attempts: int = Field(DEFAULT_MAX_ATTEMPTS, ge=1, le=32_767)
    timeout: Annotated[Span, AfterValidator(_positive)] | None = None
    result_ttl: Annotated[Span | None, Field(description="one day, if not given")] = None
    correlation_id: CorrelationId | None = None
    headers: Annotated[dict[str, Any], AfterValidator(_storable_headers)] = {}

    def job(self) -> Job:
        """The job that this asks for. Raises Misconfigured."""
        return Job(
            self.queue,
            self.payload,
            id=self.id or new_id(),
            priority=Priority[self.priority.upper()],
            run_at=self.run_at,
            delay=self.delay,
            max_attempts=self.max_attempts,
            timeout=self.timeout,
            result_ttl=DEFAULT_RESULT_TTL if self.result_ttl is None else self.result_ttl,
            correlation_id=self.correlation_id,
            headers=self.headers,
        )


class JobsRequest(Request):
    """Up to 1000 jobs, stored in one transaction."""

    jobs: list[JobRequest] = Field(min_length=1, max_length=MOST_JOBS)


class Reason(Request):
    """Why; operators read it later."""

    reason: Annotated[NoNul, Field(max_length=500)] = ""


class Since(Request):
    """From which time on."""

    since: datetime


class Place(Request):
    """Where in a log a partition is to go on."""

    partition: Annotated[NoNul, Field(min_length=1, max_length=500)]
    offset: int = Field(ge=0, lt=2**63)


# --- what callers get ----------------------------------------------------------------------------


class Page(Reply, Generic[Item]):
    """Some items, and the `cursor` of the next ones (null: there are no more)."""

    items: list[Item]
    next: UUID | None = None


class EnqueuedReply(Reply):
    """`duplicate`: a job of that id exists already and was left as it is."""

    id: UUID
    outcome: Enqueued


class EnqueuedJobs(Reply):
    """One answer a job, in the order in which they were sent."""

    items: list[EnqueuedReply]


class JobReply(Reply):
    """A job as it is stored at this moment, live or finished."""

    id: UUID
    queue: str
    state: JobState
    payload: Any
    priority: PriorityWord
    run_at: datetime
    attempt: int
    max_attempts: int
    correlation_id: str | None
    headers: dict[str, Any]
    origin: dict[str, Any] | None
    traceparent: str | None
    created_at: datetime
    claimed_at: datetime | None
    claimed_by: UUID | None
    finished_at: datetime | None
    error: str | None


class ResultReply(Reply):
    """`result` is set when the state is `completed`, `error` when it is `dead` or `cancelled`."""

    id: UUID
    state: JobState
    result: Any = None
    error: str | None = None


class AttemptReply(Reply):
    """One unsuccessful attempt."""

    attempt: int
    cause: str
    error: str | None
    traceback: str | None
    worker: UUID | None
    started_at: datetime | None
    ended_at: datetime


class QueueReply(Reply):
    """One queue at this moment; `oldest` is how long its next job has been waiting, in seconds."""

    queue: str
    available: int
    scheduled: int
    blocked: int
    running: int
    oldest: timedelta | None
    paused_at: datetime | None
    pause_reason: str | None


class QueuePaused(Reply):
    """Whether the queue is paused now."""

    queue: str
    paused: bool


class BridgeReply(Reply):
    """A bridge that a gateway has opened at least once, `seen_at` the last time."""

    name: str
    kind: str
    state: Literal["active", "paused"]
    paused_at: datetime | None
    pause_reason: str | None
    seen_at: datetime


class BridgeState(Reply):
    """Whether a bridge takes messages."""

    name: str
    state: Literal["active", "paused"]


class OffsetReply(Reply):
    """How far a partition of a log was read (null: taken, and not begun); `fence` rises with every owner."""

    partition: str
    next_offset: int | None
    fence: int
    moved_at: datetime


class BridgeMoved(Reply):
    """Where a partition goes on, and where it would have gone on."""

    name: str
    partition: str
    next_offset: int
    before: int | None


class DeadLetterReply(Reply):
    """A message or job that was given up."""

    id: UUID
    bridge: str | None
    queue: str | None
    job_id: UUID | None
    message_id: str | None
    reason: str
    detail: str
    body_size: int
    attempts: int
    created_at: datetime
    replayed_at: datetime | None
    replayed_as: UUID | None
    discarded_at: datetime | None


class DeadLetterDetail(DeadLetterReply):
    """With the bytes: as `body` when they are UTF-8, else as `body_base64`; `whole` unless they were cut."""

    body: str | None
    body_base64: str | None
    whole: bool
    content_type: str | None
    headers: dict[str, Any]
    coordinates: dict[str, Any]

    @classmethod
    def of(cls, letter: DeadLetterBody) -> DeadLetterDetail:
        """The reply for a dead letter of the core."""
        body, encoded = None, None
        try:
            body = letter.body.decode()
        except UnicodeDecodeError:
            encoded = base64.b64encode(letter.body).decode("ascii")
        return cls(
            **DeadLetterReply.model_validate(letter.letter).model_dump(),
            body=body,
            body_base64=encoded,
            whole=letter.whole,
            content_type=letter.content_type,
            headers=dict(letter.headers),
            coordinates=dict(letter.coordinates),
        )


class Replayed(Reply):
    """The job that a dead letter became; null when its bridge's mapping filters it out."""

    id: UUID
    job_id: UUID | None


class WorkerReply(Reply):
    """One life of a worker; `silent` is the age of its heartbeat in seconds."""

    id: UUID
    host: str
    pid: int
    queues: list[str]
    concurrency: int
    lease: timedelta
    state: str
    started_at: datetime
    heartbeat_at: datetime
    silent: timedelta
    lost: bool


class SinkReply(Reply):
    """A sink, and how many events are ahead of it (10001: more than 10000)."""

    name: str
    kind: str
    types: list[str]
    state: str
    reason: str | None
    behind: int
    lag: timedelta | None
    failing_since: datetime | None
    registered_at: datetime


class SinkState(Reply):
    """Whether a sink's events flow."""

    name: str
    state: Literal["active", "paused"]


class SinkReplayed(Reply):
    """How many events will be delivered again."""

    name: str
    deliveries: int


class DeliveryReply(Reply):
    """One try to deliver one event; `ran` is seconds."""

    sink: str
    job_id: UUID
    event_id: str
    attempt: int
    outcome: str
    status: int | None
    error: str | None
    ran: timedelta
    response: str
    at: datetime


class Me(Reply):
    """What the caller may do."""

    permissions: list[str]


class Version(Reply):
    """The version of the running gateway."""

    version: str
