"""The only room that speaks SQL about jobs: each method runs the statement file of its own name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import asyncpg

from ..errors import Misconfigured
from ..job import Job, JobRecord, JobState, Json, Priority
from ..retry import from_json, to_json
from .database import Connection, Record, columns, copy_in, describe, statement

COPY_FROM = 50
"""So many rows go by COPY: fewer are stored sooner by one statement, which needs no transaction around it."""

_COPIED = (
    "id", "queue", "payload", "priority", "max_attempts", "timeout", "retry", "result_ttl", "correlation_id",
    "context", "origin",
)  # fmt: skip
"""The columns of a row (`row_of`) that COPY can take; after them come run_at and delay, which need the
database's clock."""

BESIDE_TEXTS = 100
"""What a row takes beside its payload, context and origin, about."""

_HIGHEST = max(Priority)

_chunks = json.encoder.c_make_encoder(  # type: ignore[attr-defined]
    None, json.JSONEncoder().default, json.encoder.encode_basestring, None, ":", ",", False, False, False
)
"""What `JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))` makes anew for each value,
at half the price of the encoding; without its look for cycles, which end in RecursionError."""


class Row(Protocol):
    """A row of an answer, read by column name."""

    def __getitem__(self, column: str, /) -> Any: ...


class Fetcher(Protocol):
    """Whatever runs one statement: a pooled connection, or the caller's own (core/adapter.py)."""

    async def fetch(self, query: str, /, *arguments: object) -> Sequence[Row]: ...


class Completion(NamedTuple):
    """A running job's success, the commonest verdict: a tuple, because it is made once a job."""

    id: UUID
    lease: int
    seconds: float
    """How long the handler ran."""
    result: str | None
    """JSON text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """A running job's other end, cancelled or dead. `cause` is what went wrong with the attempt (failed,
    timed_out, lost), or None."""

    id: UUID
    lease: int
    state: JobState
    dead_letter_id: UUID
    cause: str | None = None
    error: str | None = None
    traceback: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """A running job's way back to its queue. `kind` is retried, snoozed or released."""

    id: UUID
    lease: int
    kind: str
    delay: timedelta = timedelta(0)
    cause: str | None = None
    error: str | None = None
    traceback: str | None = None


Verdict = Completion | Finish | Requeue
"""What a worker writes about a running job."""


def encode(value: Json, what: str) -> str:
    """JSON text that Postgres will take; raises Misconfigured for what it would not.

    NaN, lone surrogates and NUL characters pass Python's encoder and fail in jsonb, each elsewhere.
    """
    try:
        text = "".join(_chunks(value, 0))
        if not text.isascii():
            text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Misconfigured(
            f"{what} is not JSON: {error}", hint="use str, numbers, bool, None, lists, dicts"
        ) from error
    if "\\u0000" in text and _has_nul(value):
        raise Misconfigured(f"{what} holds a NUL character, which Postgres cannot store")
    return text


def _has_nul(value: Json) -> bool:
    match value:
        case str():
            return "\0" in value
        case dict():
            return any(_has_nul(k) or _has_nul(v) for k, v in value.items())
        case list() | tuple():
            return any(_has_nul(v) for v in value)
        case _:
            return False


def row_of(job: Job, payload: str | None = None) -> tuple[object, ...]:
    """A job as enqueue.sql takes it; `payload` is its JSON text where somebody has it already.

    Raises Misconfigured for what Postgres would refuse, so that one job cannot spoil a batch.
    """
    if not 0 <= job.priority <= _HIGHEST:
        raise Misconfigured(f"priority must be 0 to {_HIGHEST:d}, not {job.priority}")
    if job.correlation_id is not None:
        if not isinstance(job.correlation_id, str):
            raise Misconfigured(f"the correlation_id must be text, not {job.correlation_id!r}")
        encode(job.correlation_id, "the correlation_id")
    return (
        job.id,
        job.queue,
        encode(job.payload, "the payload") if payload is None else payload,
        job.priority,
        job.max_attempts,
        job.timeout,
        None if job.retry is None else json.dumps(to_json(job.retry)),
        job.result_ttl,
        job.correlation_id,
        context(job.traceparent, job.tracestate, job.headers)
        if job.headers or job.traceparent or job.tracestate
        else None,
        None if job.origin is None else encode(job.origin, "the origin"),
        job.run_at,
        job.delay,
    )


def size_of(row: Sequence[Any]) -> int:
    """How many characters a row (`row_of`) comes to, about: its payload, context and origin, and what stands
    beside them."""
    return len(row[2]) + len(row[9] or "") + len(row[10] or "") + BESIDE_TEXTS


def context(traceparent: str | None, tracestate: str | None, headers: Mapping[str, Json]) -> str:
    """What is carried beside the payload, as JSON text; raises Misconfigured."""
    carried: dict[str, Json] = {}
    if traceparent is not None:
        carried["traceparent"] = traceparent
    if tracestate is not None:
        carried["tracestate"] = tracestate
    if headers:
        carried["headers"] = dict(headers)
    return encode(carried, "the headers")


def job_of(row: Sequence[Any]) -> Job:
    """The job of a row (`row_of`): what would be stored, read back."""
    job_id, queue, payload, priority, attempts, timeout, retry, ttl, correlation_id, context, origin, *due = (
        row
    )
    carried = json.loads(context) if context is not None else {}
    return Job(
        queue,
        json.loads(payload),
        id=job_id,
        priority=Priority(priority),
        run_at=due[0],
        delay=due[1],
        max_attempts=attempts,
        timeout=timeout,
        retry=None if retry is None else from_json(json.loads(retry)),
        result_ttl=ttl,
        correlation_id=correlation_id,
        traceparent=carried.get("traceparent"),
        tracestate=carried.get("tracestate"),
        headers=carried.get("headers", {}),
        origin=None if origin is None else json.loads(origin),
    )


async def enqueue(
    connection: Fetcher, rows: Sequence[tuple[object, ...]], announce: Sequence[str] = ()
) -> set[UUID]:
    """Store jobs (`row_of`) on a connection whose transaction is the caller's; the ids that are new.

    `announce` names the queues whose idle workers are told when that transaction commits.
    """
    if not rows:
        return set()
    stored = await connection.fetch(statement("enqueue"), *columns(rows, 13), list(announce))
    return {row["id"] for row in stored}


async def enqueue_fresh(
    connection: Connection, rows: Sequence[tuple[object, ...]], announce: Sequence[str] = ()
) -> set[UUID]:
    """As `enqueue`, for ids that are new: many rows that are due at once go by COPY, twice as fast.

    The connection's codecs must be the driver's own. Raises asyncpg.UniqueViolationError when an id exists
    after all; `enqueue` then says which. As there, what cannot be stored is an asyncpg.DataError.
    """
    ids: list[Any] = [row[0] for row in rows]
    timed = any(row[-1] is not None or row[-2] is not None for row in rows)
    if len(rows) < COPY_FROM or timed or not _ascend(ids):
        return await enqueue(connection, rows, announce)
    await copy(connection, rows, ids, announce)
    return set(ids)


def copyable(jobs: Sequence[Job]) -> bool:
    """Whether `copy` takes these jobs, if their ids are new."""
    timed = any(job.run_at is not None or job.delay is not None for job in jobs)
    return len(jobs) >= COPY_FROM and not timed and _ascend([job.id for job in jobs])


def _ascend(ids: Sequence[UUID]) -> bool:
    """Jobs of a COPY share one run_at, so that their ids alone say in which order they came."""
    return all(one < next for one, next in pairwise(ids))


async def copy(
    connection: Connection,
    rows: Iterable[tuple[object, ...]] | AsyncIterable[tuple[object, ...]],
    ids: Collection[UUID],
    announce: Sequence[str] = (),
) -> None:
    """Store jobs (`row_of`) that are `copyable`, as `enqueue_fresh` does.

    `ids` is looked at when `rows` is at its end. What making the rows raises comes out as it is, or as an
    asyncpg.DataError where the driver could have raised it.
    """
    try:
        await copy_in(connection, "jobs", _COPIED, rows)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        # A statement's values the driver refuses as the server would, those of a COPY it lets fail anyhow.
        raise asyncpg.DataError(describe(error)) from error
    (copied,) = await connection.fetch(statement("copied"), list(announce))
    if copied["wanted"]:
        await connection.fetch(statement("note_enqueued"), list(ids))


async def not_stored(connection: Fetcher, rows: Sequence[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Those rows whose jobs do not exist: after a cut COMMIT, one that does may be finished by now."""
    known = await connection.fetch(statement("known_jobs"), [row[0] for row in rows])
    stored = {row["id"] for row in known}
    return [row for row in rows if row[0] not in stored]


async def complete(connection: Fetcher, worker: UUID, jobs: Sequence[Completion]) -> set[UUID]:
    """Settle running jobs that succeeded; the ids that were not this worker's to settle."""
    rows = await connection.fetch(statement("complete"), worker, *columns(jobs, 4))
    return {row["id"] for row in rows}


async def finish(connection: Fetcher, worker: UUID, jobs: Sequence[Finish]) -> set[UUID]:
    """Settle running jobs that did not succeed; the ids that were not this worker's to settle."""
    given = [
        (f.id, f.lease, str(f.state), f.cause, f.error, f.traceback, f.seconds, f.dead_letter_id)
        for f in jobs
    ]
    rows = await connection.fetch(statement("finish"), worker, *columns(given, 8))
    return {row["id"] for row in rows}


async def requeue(connection: Fetcher, worker: UUID, jobs: Sequence[Requeue]) -> Sequence[Row]:
    """Give running jobs back; rows of (id, queue, kind) for those that were this worker's to give."""
    rows = [(r.id, r.lease, r.kind, r.cause, r.error, r.traceback, r.delay) for r in jobs]
    return await connection.fetch(statement("requeue"), worker, *columns(rows, 7))


def record_of(row: Record) -> JobRecord:
    """A row of get.sql or list_jobs.sql as a JobRecord."""
    context = json.loads(row["context"]) if row["context"] else {}
    return JobRecord(
        id=row["id"],
        queue=row["queue"],
        state=JobState(row["state"]),
        payload=json.loads(row["payload"]) if row["payload"] is not None else None,
        priority=Priority(row["priority"]),
        run_at=row["run_at"],
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        lease=row["lease"],
        correlation_id=row["correlation_id"],
        headers=context.get("headers", {}),
        origin=json.loads(row["origin"]) if row["origin"] else None,
        traceparent=context.get("traceparent"),
        created_at=row["created_at"],
        claimed_at=row["claimed_at"],
        claimed_by=row["claimed_by"],
        finished_at=row["finished_at"],
        error=row["error"],
    )
