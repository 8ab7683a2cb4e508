"""The delivery log: the tries that ended together are written by one statement, each before it is settled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple, assert_never
from uuid import UUID

import asyncpg
import structlog

from .. import operate
from ..backoff import Backoff
from ..errors import HammerworkError, NotFound, Unavailable
from ..event import DeliveryReport
from ..execute.running import RunningJob
from ..ingest.burial import storable
from ..job import Cancel, Dead, Done, Outcome, Retry, Snooze
from ..postgres.database import Database, columns

log = structlog.get_logger(__name__)

HIGHEST_STATUS = 2**31 - 1


class Try(NamedTuple):
    """One try to deliver one event, as the log keeps it; its handler waits for `written`."""

    written: asyncio.Future[None]
    job_id: UUID
    event_id: str
    attempt: int
    status: int | None
    error: str | None
    seconds: float
    response: str
    outcome: str
    disable: str | None


class DeliveryLog:
    """The log of one sink, which also tells when to give the sink up: it asked for it, or took nothing for
    longer than `disable_after`.

    What an operator may rely on: a delivery that is settled has its row, also after a crash. A row may be
    there twice after a cut COMMIT. While Postgres is away tries wait to be written, as they would to be
    settled, so that what was taken is not sent again.
    """

    def __init__(self, database: Database, sink: str, *, disable_after: timedelta) -> None:
        self._database = database
        self._sink = sink
        self._disable_after = disable_after
        self._waiting: list[Try] = []
        self._work = asyncio.Event()
        self._closed = False

    async def write(self, job: RunningJob, event_id: str, report: DeliveryReport, seconds: float) -> None:
        """Wait until this try is written, and the sink disabled if it was its last. Raises Unavailable when
        the log ends before, and what Postgres refuses."""
        if self._closed:
            raise _closed()
        status = report.status
        written = asyncio.get_running_loop().create_future()
        self._waiting.append(
            Try(
                written,
                job.id,
                event_id,
                job.attempt,
                # What a sink of somebody else's answers must not spoil the rows beside it.
                status if status is not None and 0 <= status <= HIGHEST_STATUS else None,
                storable(report.error) if report.error else None,
                seconds,
                storable(report.response) if report.response else "",
                word_for(report.outcome),
                report.disable,
            )
        )
        self._work.set()
        await written

    async def run(self) -> None:
        """Write until cancelled."""
        batch: list[Try] = []
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                # No lingering: what ends while a statement is under way makes the next batch.
                batch, self._waiting = self._waiting, []
                await self._write(batch)
        finally:
            self._closed = True
            _end([*batch, *self._waiting], _closed())

    async def _write(self, batch: Sequence[Try]) -> None:
        backoff = Backoff(longest=2.0)
        while True:
            try:
                await self._store(batch)
                return _end(batch)
            except HammerworkError as error:
                delay = backoff.next()
                log.warning(
                    "deliveries could not be logged yet", sink=self._sink, deliveries=len(batch),
                    error=str(error), retry_in=round(delay, 2),
                )  # fmt: skip
                await asyncio.sleep(delay)
            except asyncpg.PostgresError as error:
                return _end(batch, error)

    async def _store(self, batch: Sequence[Try]) -> None:
        _, *rows, _ = columns(batch, len(Try._fields))
        reason = next((attempt.disable for attempt in batch if attempt.disable), None)
        (answer,) = await self._database.fetch("log_deliveries", self._sink, *rows)
        failing = answer["failing"]
        if reason is None and failing is not None and failing > self._disable_after:
            reason = f"nothing was taken for {failing}"
        if reason is not None:
            with suppress(NotFound):  # it was removed meanwhile
                await operate.disable_sink(self._database, self._sink, reason)
            log.error("sink disabled", sink=self._sink, reason=reason)


def _closed() -> Unavailable:
    return Unavailable("the delivery log was closed")


def _end(batch: Sequence[Try], error: Exception | None = None) -> None:
    """Let the handlers go on; one that was cancelled meanwhile waits no more."""
    for attempt in batch:
        if not attempt.written.done():
            if error is None:
                attempt.written.set_result(None)
            else:
                attempt.written.set_exception(error)


def word_for(outcome: Outcome) -> str:
    """The outcome as the log names it."""
    match outcome:
        case Done():
            return "done"
        case Retry():
            return "retry"
        case Snooze():
            return "snooze"
        case Cancel():
            return "cancel"
        case Dead():
            return "dead"
        case _:
            assert_never(outcome)
