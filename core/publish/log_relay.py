"""LogRelay: the event log to a log sink, in order, in batches; its position moves behind what was taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import asyncpg
import structlog

from ..backoff import Backoff
from ..cancellation import asked_to_end
from ..errors import Disconnected, HammerworkError, Misconfigured, StateConflict, Unavailable
from ..event import LogSink, SharedLogSink
from ..failpoints import reach
from ..postgres.database import Connection, Database, Record, statement
from ..postgres.duty import Duty
from ..status import Status
from .batch import Batch, Letter, bury_events
from .log_reader import BATCH, LogReader, Slice
from .reading import LATEST, PASS_OVER_EVERY, SOONEST, Place, refuse_ahead
from .relay import Registration, Subscription, age, told

log = structlog.get_logger(__name__)

T = TypeVar("T")

HOLD_DUTY = timedelta(seconds=30)
"""How long a sink stays in the hands of a process that answers no more. A send may take two thirds of it, so
that nobody else sends while one is under way."""

MISCONFIGURED_RETRY = 30.0
"""Seconds until a sink whose setting is wrong is opened again: somebody may have mended the other side."""

CLOSE_WITHIN, NOTE_WITHIN = 5.0, 2.0
LONGEST_BACKOFF = 10.0


@dataclass(slots=True)
class LogRelayCounts:
    """What a relay has done since it started; read for metrics."""

    events: int = 0
    taken: int = 0
    dead: int = 0
    retried: int = 0
    batches: int = 0
    reopened: int = 0
    """How often the sink was closed because it failed or did not answer."""


class LogRelay:
    """Hands the events of one subscription to a log sink.

    The position moves when every event up to it was taken, or lies in the dead letters; so none is skipped,
    and after a crash some are sent again (by a sink that keeps its position itself: none). While a batch is
    sent the next one is read and the one before is noted; there is no more than that in memory. One
    process a sink does it at a time, and a move by anybody else ends ours (move_sink.sql).
    """

    def __init__(
        self,
        database: Database,
        subscription: Subscription,
        sink: LogSink,
        *,
        kind: str,
        batch: int = BATCH,
        hold: timedelta = HOLD_DUTY,
    ) -> None:
        self.subscription = subscription
        self.status = Status()
        self.counts = LogRelayCounts()
        self._database = database
        self._sink = sink
        self._batch = batch
        self._hold = hold.total_seconds()
        self._duty = Duty(database, f"relay.{subscription.name}", hold=hold)
        self._behind_at: datetime | None = None
        self._registration = Registration(database, subscription, kind)
        self._failing = False
        self._stopping = asyncio.Event()

    @property
    def lag(self) -> float:
        """Seconds that the oldest event in hand is old; 0 while there is none."""
        return age(self._behind_at)

    def stop(self) -> None:
        """End after the batch in hand, when its position is noted. Idempotent."""
        self._stopping.set()

    async def run(self) -> None:
        """Relay until stopped or cancelled."""
        backoff = Backoff(longest=LONGEST_BACKOFF)
        try:
            while not self._stopping.is_set():
                await self._rest(await self._turn(backoff))
        finally:
            self.status.stopped()
            await self._duty.leave()

    async def _turn(self, backoff: Backoff) -> float:
        """Relay until something is in the way; how long to rest after it."""
        name, batches = self.subscription.name, self.counts.batches
        try:
            ours = await self._duty.ours()
            await self._registration.once()
            if not ours:
                self.status.running()
                return self._hold / 5
            if (row := await self._look_at()) is None:
                self.status.running()
                return LATEST
            refuse_ahead(name, row)
            await self._session(row)
            return 0.0
        except Misconfigured as error:
            await self._held(told(error))
            # An operator must get at the sink, and may have removed it when we come again.
            self._registration.forget()
            await self._duty.leave()
            log.error("sink held: a setting is wrong", sink=name, error=str(error), hint=error.hint)
            return MISCONFIGURED_RETRY
        except (HammerworkError, asyncpg.PostgresError) as error:
            await self._held(str(error))
            log.warning("sink held", sink=name, error=str(error))
        except Exception as error:
            await self._held(f"{type(error).__name__}: {error}")
            log.exception("sink failed", sink=name)
        if self.counts.batches > batches:
            backoff.reset()
        return backoff.next()

    async def _held(self, reason: str) -> None:
        self.status.holding(reason)
        if not self._failing:
            with suppress(HammerworkError, asyncpg.PostgresError):
                await self._database.fetch("sink_fails", self.subscription.name)
                self._failing = True

    # --- one opening of the sink ---

    async def _session(self, row: Record) -> None:
        """Open the sink, relay until it is paused, lost or stopped, and close it."""
        try:
            if isinstance(self._sink, SharedLogSink):
                self._sink.belong_to(row["deployment"])
            mark = await self._answered(self._sink.open())
            log.info("sink open", sink=self.subscription.name)
            self.status.running()
            await self._relay(Place.of(row), self._start(row, mark), row["log"])
        except BaseException:
            self.counts.reopened += 1
            raise
        finally:
            self._behind_at = None
            try:
                async with asyncio.timeout(CLOSE_WITHIN):
                    await self._sink.close()
            except Exception as error:
                log.warning("sink did not close", sink=self.subscription.name, error=str(error))

    def _start(self, row: Record, mark: str | None) -> Place:
        """Behind the last batch that was taken: what the sink knows of it, where that is of this very log."""
        kept = Place.of(row)
        if mark is None:
            return kept
        xid, _, rest = mark.partition(":")
        number, _, of_log = rest.partition(":")
        if of_log != row["log"] or not (xid.isdecimal() and number.isdecimal()):
            log.warning(
                "the sink's position is of another log; going on from the one in postgres: some events may"
                " be sent again", sink=self.subscription.name, mark=mark, log=row["log"],
            )  # fmt: skip
            return kept
        return max(kept, Place(int(xid), int(number)))

    async def _relay(self, kept: Place, start: Place, of_log: str) -> None:
        """Read, send and note, each of another batch at the same time. `kept` is the position in Postgres."""
        reader = LogReader(self._database, self.subscription, start, of_log, batch=self._batch)
        ahead: asyncio.Task[Slice | None] | None = None
        noting: asyncio.Task[None] | None = None
        # What the sink knows and Postgres does not is noted with the first batch, be it empty.
        rest, moved_at = SOONEST, time.monotonic() if start == kept else -PASS_OVER_EVERY
        try:
            while not self._stopping.is_set() and await self._patiently(self._duty.ours):
                found = await (ahead if ahead is not None else self._patiently(reader.next))
                if found is None:
                    return
                ahead = self._task(self._patiently(reader.next), "read ahead") if found.more else None
                batch = Batch(found.events, self.subscription)
                await self._send(batch, f"{found.end.xid}:{found.end.id}:{of_log}")
                if noting is not None:
                    await noting
                    noting = None
                start = found.end
                if batch.events or time.monotonic() > moved_at + PASS_OVER_EVERY:
                    noting = self._task(self._note(batch.letters, kept, start), "note")
                    kept, moved_at = start, time.monotonic()
                if not found.more:
                    rest = SOONEST if found.events else min(rest * 1.5, LATEST)
                    await self._rest(rest)
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)
            if noting is not None:
                await self._end_note(noting)

    async def _end_note(self, noting: asyncio.Task[None]) -> None:
        """What was taken is not sent again for want of a moment to say so."""
        await asyncio.wait({noting}, timeout=NOTE_WITHIN)
        noting.cancel()
        await asyncio.gather(noting, return_exceptions=True)

    def _task(self, act: Coroutine[Any, Any, T], what: str) -> asyncio.Task[T]:
        return asyncio.create_task(act, name=f"{what} {self.subscription.name}")

    async def _look_at(self) -> Record | None:
        rows = await self._database.fetch("look_at_sink", self.subscription.name)
        return rows[0] if rows else None

    # --- send ---

    async def _send(self, batch: Batch, mark: str) -> None:
        """Send until every event is taken, or dead and kept. What is tried again goes before anything."""
        self.counts.events += len(batch.events)
        backoff = Backoff(first=0.05, longest=LONGEST_BACKOFF)
        while batch.pending:
            self._behind_at = batch.pending[0].at
            # Also after each rest: a process that was frozen must not send into another's stream.
            if not await self._patiently(self._duty.ours):
                raise StateConflict("another process relays to this sink now")
            await reach("log_relay.before_send")
            outcomes = await self._answered(self._sink.send(batch.pending, mark))
            await reach("log_relay.sent")
            verdict = batch.judge(outcomes)
            self.counts.taken += verdict.taken
            self.counts.retried += verdict.retried
            self.counts.dead += verdict.dead
            if verdict.taken:
                backoff.reset()
                self.status.progressed()
            if not batch.pending:
                break
            if self._stopping.is_set():
                raise Unavailable("stopped before all of a batch was taken")
            await self._bury(batch)
            if verdict.reason:
                await self._held(verdict.reason)
                log.warning(
                    "events not taken", sink=self.subscription.name, events=len(batch.pending),
                    error=verdict.reason,
                )  # fmt: skip
                await self._rest(max(verdict.delay, backoff.next()))
            elif not verdict.dead:
                await self._rest(max(verdict.delay, backoff.next() if not verdict.taken else 0.0))
        self._behind_at = None
        if batch.events:
            self.counts.batches += 1
            self.status.progressed()

    async def _bury(self, batch: Batch) -> None:
        """Keep what is dead before the rest is sent: a sink that moves the position itself would leave it
        behind."""
        if batch.letters:
            await self._patiently(lambda: self._bury_once(batch.letters))
            batch.letters = []

    async def _bury_once(self, letters: list[Letter]) -> None:
        async with self._database.transaction() as connection:
            await bury_events(connection, self.subscription.queue, letters)

    async def _answered(self, call: Awaitable[T]) -> T:
        """What the sink answers in time."""
        try:
            async with asyncio.timeout(self._hold * 2 / 3) as limit:
                return await call
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise Disconnected(f"no answer within {self._hold * 2 / 3:g} s") from error
        except asyncio.CancelledError as error:
            if asked_to_end():
                raise
            raise Disconnected("the sink's client cancelled its own call") from error

    # --- note ---

    async def _note(self, letters: list[Letter], kept: Place, end: Place) -> None:
        """Move the position, and in the same transaction keep what is dead."""
        await self._patiently(lambda: self._move(letters, kept, end))
        self._failing = False
        await reach("log_relay.noted")

    async def _move(self, letters: list[Letter], kept: Place, end: Place) -> None:
        async with self._database.transaction() as connection:
            await bury_events(connection, self.subscription.queue, letters)
            await self._advance(connection, kept, end)

    async def _advance(self, connection: Connection, kept: Place, end: Place) -> None:
        name = self.subscription.name
        places = (str(kept.xid), kept.id, str(end.xid), end.id)
        if not await connection.fetch(statement("move_sink"), name, *places):
            raise StateConflict("another process has moved this sink's position, or it was removed")

    # --- patience ---

    async def _patiently(self, act: Callable[[], Awaitable[T]]) -> T:
        """Again and again while Postgres is away: the sink stays open, and what was taken stays known."""
        backoff, held = Backoff(longest=2.0), False
        while True:
            try:
                answer = await act()
                if held:
                    self.status.running()
                return answer
            except Unavailable as error:
                if self._stopping.is_set():
                    raise
                held = True
                self.status.holding(str(error))
                log.warning("relay held", sink=self.subscription.name, error=str(error))
                await self._rest(backoff.next())

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
