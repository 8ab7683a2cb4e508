"""RunningJob: the job as its handler sees it, for one attempt."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from enum import Enum, auto
from json import JSONDecoder
from typing import Any
from uuid import UUID

import structlog

from ..errors import HammerworkError, LeaseLost, Misconfigured
from ..job import Json, Priority
from ..postgres import store
from ..postgres.database import Connection, Database, Record
from ..postgres.store import Completion
from ..retry import RetryStrategy, from_json

log = structlog.get_logger(__name__)

_SCANNER = JSONDecoder().scan_once  # type: ignore[attr-defined]


class Interrupt(Enum):
    """Why the worker cancelled a handler's task."""

    CANCEL_ASKED = auto()
    LEASE_LOST = auto()
    WORKER_STOPS = auto()


class RunningJob:
    """The job as its handler sees it, for one attempt.

    `id`, `queue`, `payload`, `attempt` (1 for the first), `max_attempts`, `priority`, `correlation_id`,
    `headers`, `traceparent`, `tracestate`, `origin`, `created_at`, `run_at`.
    """

    __slots__ = (
        "_database", "_row", "_stop", "_worker", "attempt", "headers", "id", "interrupted_by", "lease",
        "origin", "payload", "queue", "result", "retry", "settled", "started", "task", "timeout",
        "traceparent", "tracestate",
    )  # fmt: skip

    def __init__(self, row: Record, worker: UUID, database: Database) -> None:
        self._row = row
        self._worker = worker
        self._database = database
        self.id: UUID = row["id"]
        self.queue: str = row["queue"]
        self.attempt: int = row["attempt"]
        self.lease: int = row["lease"]
        self.timeout: timedelta | None = row["timeout"]
        payload, origin = row["payload"], row["origin"]
        self.payload: Json = None if payload is None else _value(payload)
        self.origin: Mapping[str, Json] | None = None if origin is None else _value(origin)
        self.headers: Mapping[str, Json] = {}
        self.traceparent: str | None = None
        self.tracestate: str | None = None
        if row["context"] is not None:
            self._read_context(_value(row["context"]))
        self.retry: RetryStrategy | None = None if row["retry"] is None else _stored_strategy(row)
        self.result: Json = None
        """What `transaction()` stores as the job's result; set it inside the block."""
        self.started = 0.0
        self.settled = False
        self.interrupted_by: Interrupt | None = None
        self.task: asyncio.Task[None] | None = None
        self._stop: threading.Event | None = None

    @property
    def payload_text(self) -> str | None:
        """The payload as Postgres prints its JSON."""
        return self._row["payload"]  # type: ignore[no-any-return]

    @property
    def max_attempts(self) -> int:
        return self._row["max_attempts"]  # type: ignore[no-any-return]

    @property
    def priority(self) -> Priority:
        return Priority(self._row["priority"])

    @property
    def run_at(self) -> datetime:
        return self._row["run_at"]  # type: ignore[no-any-return]

    @property
    def created_at(self) -> datetime:
        return self._row["created_at"]  # type: ignore[no-any-return]

    @property
    def correlation_id(self) -> str | None:
        return self._row["correlation_id"]  # type: ignore[no-any-return]

    def _read_context(self, context: Mapping[str, Any]) -> None:
        self.headers = context.get("headers", {})
        self.traceparent = context.get("traceparent")
        self.tracestate = context.get("tracestate")

    def __repr__(self) -> str:
        return f"RunningJob({self.id}, queue={self.queue!r}, attempt={self.attempt}/{self.max_attempts})"

    @property
    def stop_requested(self) -> bool:
        """Whether the handler should come to an end: cancelled, timed out, lease lost, or the worker stops.

        For handlers in threads, which cannot be interrupted: look at it between steps.
        """
        return self._stop is not None and self._stop.is_set()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction that commits the handler's writes and the job's completion together.

        Yields an asyncpg connection. When the block ends, the job is completed (with `job.result`) in the
        same transaction, so its effects happen exactly once whatever crashes. Raises LeaseLost, and rolls
        back, when this worker does not own the job any more; what the block raises rolls back and comes
        out as it is. What the handler returns afterwards does not count. The block may be completed once.
        """
        if self.settled:
            raise Misconfigured("job.transaction() was used already: it completes the job")
        raised: BaseException | None = None
        try:
            async with self._database.transaction(lent=True) as connection:
                try:
                    yield connection
                except BaseException as error:
                    raised = error
                    raise
                await self._complete(connection)
        except HammerworkError:
            # An OSError of the handler's own must not come out as "Postgres is away".
            if raised is not None:
                raise raised from raised.__cause__
            raise
        self.settled = True

    async def _complete(self, connection: Connection) -> None:
        result = None if self.result is None else store.encode(self.result, "the result")
        completion = Completion(self.id, self.lease, time.monotonic() - self.started, result)
        if await store.complete(connection, self._worker, [completion]):
            raise LeaseLost(f"job {self.id} is not ours any more; nothing was written")

    def enter_thread(self) -> None:
        """The handler is about to run in a thread, where it can only be asked to stop."""
        self._stop = threading.Event()

    def interrupt(self, why: Interrupt) -> None:
        """Note why the handler's task is about to be cancelled; the first reason stays."""
        self.interrupted_by = self.interrupted_by or why
        if self._stop is not None:
            self._stop.set()


def _value(text: str) -> Any:
    """The value of JSON text as jsonb prints it: no white space around it to look for."""
    return _SCANNER(text, 0)[0]


def _stored_strategy(row: Record) -> RetryStrategy | None:
    try:
        return from_json(json.loads(row["retry"]))
    except (Misconfigured, ValueError) as error:
        # A newer version may know more strategies than this one.
        log.warning("the worker's retry strategy instead of the job's", job=str(row["id"]), error=str(error))
        return None
