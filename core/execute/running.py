"""RunningJob: the job as its handler sees it, for one attempt."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any
from uuid import UUID

import structlog

from ..errors import HammerworkError, LeaseLost, Misconfigured
from ..job import JobState, Json
from ..postgres import store
from ..postgres.database import Connection, Database, Record
from ..postgres.store import Finish
from ..retry import RetryStrategy, from_json

log = structlog.get_logger(__name__)


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
        "_database", "_stop", "_worker", "attempt", "correlation_id", "created_at", "headers", "id",
        "interrupted_by", "lease", "max_attempts", "origin", "payload", "priority", "queue", "result",
        "retry", "run_at", "settled", "started", "timeout", "traceparent", "tracestate",
    )  # fmt: skip

    def __init__(self, row: Record, worker: UUID, database: Database) -> None:
        self.id: UUID = row["id"]
        self.queue: str = row["queue"]
        payload = row["payload"]
        self.payload: Json = None if payload is None else json.loads(payload)
        self.priority = row["priority"]
        self.attempt: int = row["attempt"]
        self.max_attempts: int = row["max_attempts"]
        self.lease: int = row["lease"]
        self.run_at: datetime = row["run_at"]
        self.created_at: datetime = row["created_at"]
        self.timeout: timedelta | None = row["timeout"]
        self.correlation_id: str | None = row["correlation_id"]
        context: Mapping[str, Any] = json.loads(row["context"]) if row["context"] else {}
        self.headers: Mapping[str, Json] = context.get("headers", {})
        self.traceparent: str | None = context.get("traceparent")
        self.tracestate: str | None = context.get("tracestate")
        self.origin: Mapping[str, Json] | None = json.loads(row["origin"]) if row["origin"] else None
        self.retry: RetryStrategy | None = _stored_strategy(row)
        self.result: Json = None
        """What `transaction()` stores as the job's result; set it inside the block."""
        self.started = 0.0
        self._worker = worker
        self._database = database
        self.settled = False
        self.interrupted_by: Interrupt | None = None
        self._stop: threading.Event | None = None

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
        finish = Finish(
            id=self.id,
            lease=self.lease,
            state=JobState.COMPLETED,
            dead_letter_id=self.id,
            result=result,
            ran=timedelta(seconds=time.monotonic() - self.started),
        )
        if not await store.finish(connection, self._worker, [finish]):
            raise LeaseLost(f"job {self.id} is not ours any more; nothing was written")

    def enter_thread(self) -> None:
        """The handler is about to run in a thread, where it can only be asked to stop."""
        self._stop = threading.Event()

    def interrupt(self, why: Interrupt) -> None:
        """Note why the handler's task is about to be cancelled; the first reason stays."""
        self.interrupted_by = self.interrupted_by or why
        if self._stop is not None:
            self._stop.set()


def _stored_strategy(row: Record) -> RetryStrategy | None:
    try:
        return from_json(json.loads(row["retry"])) if row["retry"] else None
    except (Misconfigured, ValueError) as error:
        # A newer version may know more strategies than this one.
        log.warning("the worker's retry strategy instead of the job's", job=str(row["id"]), error=str(error))
        return None
