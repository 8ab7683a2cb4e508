"""Relay: the event log to one sink, in order, from a durable position that moves with what it made."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

import asyncpg
import structlog

from ..backoff import Backoff
from ..errors import HammerworkError, Misconfigured
from ..event import Event, EventType, LoggedEvent
from ..expression import Condition
from ..identity import new_id, slot_of
from ..job import SINK_QUEUE_PREFIX, Job, Json, check_name
from ..postgres import store
from ..postgres.database import Connection, Database, Record, statement
from ..postgres.duty import Duty
from ..status import Status
from .reading import LATEST, PASS_OVER_EVERY, SOONEST, Look, Place, look, refuse_ahead

log = structlog.get_logger(__name__)

BATCH = 500
HOLD_DUTY = timedelta(seconds=10)
FILTER_VARIABLES = ("type", "queue", "job_id", "sequence", "data")


def variables_of(event: Event | LoggedEvent) -> dict[str, Json]:
    """What the FILTER_VARIABLES are for an event."""
    return {
        "type": str(event.type),
        "queue": event.queue,
        "job_id": str(event.job_id) if event.job_id else None,
        "sequence": event.sequence,
        "data": dict(event.data),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Which events a sink wants: types, queues by glob pattern (none: all), and a CEL condition over
    `type`, `queue`, `job_id`, `sequence` and `data`.

    `source` is the `source` of the CloudEvents, `max_attempts` how often one delivery is tried. `from_log`:
    the sink reads the event log itself (`LogSink`), so there are no deliveries.
    """

    name: str
    types: frozenset[EventType] = frozenset(
        {EventType.COMPLETED, EventType.FAILED, EventType.DEAD, EventType.CANCELLED}
    )
    queues: tuple[str, ...] = ()
    condition: Condition | None = None
    source: str = "/hammerwork"
    max_attempts: int = 10
    from_log: bool = False
    accepts: Callable[[Event | LoggedEvent], bool] | None = None
    """A condition in Python, for streams that are put together in code."""

    def __post_init__(self) -> None:
        check_name("sink", self.name)
        if not self.types:
            raise Misconfigured(
                f"sink {self.name!r} wants no events", hint=f"name some of {', '.join(EventType)}"
            )

    @property
    def queue(self) -> str:
        """The queue whose jobs are this sink's deliveries."""
        return SINK_QUEUE_PREFIX + self.name

    def wants(self, event: Event | LoggedEvent) -> bool:
        """Whether this event is for the sink. A condition that fails on an event counts as yes: better one
        event too many than one lost."""
        if event.type not in self.types:
            return False
        if self.queues and not any(fnmatchcase(event.queue or "", pattern) for pattern in self.queues):
            return False
        return self._meets_condition(event) and self._is_accepted(event)

    def chosen(self, events: Sequence[LoggedEvent]) -> Sequence[LoggedEvent]:
        """Those that the sink wants."""
        if self.queues or self.condition is not None or self.accepts is not None:
            return [event for event in events if self.wants(event)]
        types: frozenset[str] = self.types
        return [event for event in events if event.type in types]

    def _is_accepted(self, event: Event | LoggedEvent) -> bool:
        if self.accepts is None:
            return True
        try:
            return bool(self.accepts(event))
        except Exception:
            log.exception("condition failed", sink=self.name, event_id=str(event.id))
            return True

    def _meets_condition(self, event: Event | LoggedEvent) -> bool:
        return self.condition is None or self.condition.holds(variables_of(event), otherwise=True)

    def delivery(self, event: Event) -> Job:
        """The job that delivers this event; it shares the slot of the job that the event is about."""
        correlation_id = event.data.get("correlation_id")
        return Job(
            self.queue,
            event.cloud_event(self.source),
            id=new_id(slot_of(event.job_id) if event.job_id else None),
            max_attempts=self.max_attempts,
            correlation_id=correlation_id if isinstance(correlation_id, str) else None,
        )


@dataclass(slots=True)
class RelayCounts:
    """What a relay has done since it started; read for metrics."""

    events: int = 0
    deliveries: int = 0
    batches: int = 0


class Registration:
    """The sink's row. While it is there events are kept for the sink, whichever process relays to it."""

    def __init__(self, database: Database, subscription: Subscription, kind: str) -> None:
        self._database = database
        self._subscription = subscription
        self._kind = kind
        self._made = False

    async def once(self) -> None:
        """Write the row, unless it was written already."""
        if self._made:
            return
        types = sorted(self._subscription.types)
        await self._database.fetch("register_sink", self._subscription.name, self._kind, types)
        self._made = True

    def forget(self) -> None:
        """The row may have been removed: write it again the next time."""
        self._made = False


class Relay:
    """Fans the events of one subscription out as jobs on `sink.<name>`.

    The jobs and the move of the position are one transaction, so an event is neither skipped nor fanned
    out twice, however often this is killed. One process a sink does it at a time; two at once would
    only wait for one another's lock on the position.
    """

    def __init__(self, database: Database, subscription: Subscription, *, kind: str) -> None:
        self.subscription = subscription
        self.status = Status()
        self.counts = RelayCounts()
        self._database = database
        self._moved_at = time.monotonic()
        self._end: Place | None = None
        """Where the log ended for this sink at the last look, if that found nothing."""
        self._behind_at: datetime | None = None
        self._registration = Registration(database, subscription, kind)
        self._stopping = asyncio.Event()
        self._duty = Duty(database, f"relay.{subscription.name}", hold=HOLD_DUTY)

    @property
    def lag(self) -> float:
        """Seconds that the event which was read last is old, while more wait behind it; else 0."""
        return age(self._behind_at)

    async def run(self) -> None:
        """Relay until stopped or cancelled."""
        backoff, rest = Backoff(), SOONEST
        try:
            while not self._stopping.is_set():
                try:
                    rest = await self._turn(rest)
                    backoff.reset()
                except (HammerworkError, asyncpg.PostgresError) as error:
                    rest = backoff.next()
                    await self._hold_back(error)
                await self._rest(rest)
        finally:
            self.status.stopped()
            await self._duty.leave()

    async def _hold_back(self, error: Exception) -> None:
        self._end = None
        self.status.holding(told(error))
        log.warning("relay held", sink=self.subscription.name, error=told(error))
        if isinstance(error, Misconfigured):
            # An operator must get at the sink, and may have removed it when we come again.
            self._registration.forget()
            await self._duty.leave()

    def stop(self) -> None:
        """End after the batch in hand. Idempotent."""
        self._stopping.set()

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _turn(self, rest: float) -> float:
        """One batch, if the duty is ours; how long to rest after it."""
        ours = await self._duty.ours()
        await self._registration.once()
        if not ours:
            self.status.running()
            return HOLD_DUTY.total_seconds() / 5
        taken = await self.relay_once() if await self._worth_a_look() else 0
        self.status.running()
        if taken == BATCH:
            return 0.0
        return SOONEST if taken else min(rest * 1.5, LATEST)

    async def _worth_a_look(self) -> bool:
        """Not while the log is as the last look left it, which found nothing: that is seen without a lock."""
        if self._end is None or time.monotonic() >= self._moved_at + PASS_OVER_EVERY:
            return True
        (log_now,) = await self._database.fetch("log_has_grown", str(self._end.xid), self._end.id)
        return bool(log_now["grown"])

    async def relay_once(self) -> int:
        """Take the next batch of events, at most BATCH; how many there were."""
        subscription, delivered = self.subscription, 0
        self._end = None
        async with self._database.transaction() as connection:
            position = await connection.fetchrow(statement("sink_position"), subscription.name)
            if position is None:
                return 0
            if position["ahead"]:
                # Whoever waited for the lock sees the newest position beside its own older snapshot.
                for fresh in await connection.fetch(statement("look_at_sink"), subscription.name):
                    refuse_ahead(subscription.name, fresh)
            after, horizon = Place.of(position), position["horizon"]
            found = await look(connection, subscription.name, position["types"], after, horizon, BATCH)
            if found.rows:
                delivered = await fan_out(connection, subscription, found.rows)
            if self._moves(found):
                await connection.fetch(
                    statement("advance_sink"), subscription.name, str(found.end.xid), found.end.id
                )
        self._behind_at = found.rows[-1]["at"] if found.full else None
        self._end = None if found.rows else found.end
        if found.rows:
            self.counts.batches += 1
            self.counts.events += len(found.rows)
            self.counts.deliveries += delivered
            self.status.progressed()
        return len(found.rows)

    def _moves(self, found: Look) -> bool:
        """Whether the position moves behind this look: not when nothing came and the last move is young."""
        now = time.monotonic()
        if not found.rows and now < self._moved_at + PASS_OVER_EVERY:
            return False
        self._moved_at = now
        return True


async def fan_out(connection: Connection, subscription: Subscription, rows: Sequence[Record]) -> int:
    """Store a delivery for each wanted event, in the caller's transaction; how many."""
    jobs = [subscription.delivery(event) for event in map(event_of, rows) if subscription.wants(event)]
    await store.enqueue_fresh(connection, [store.row_of(job) for job in jobs], announce=[subscription.queue])
    return len(jobs)


async def log_again(connection: Connection, subscription: Subscription, rows: Sequence[Record]) -> int:
    """Put copies of each wanted event at the end of the log, in the caller's transaction; how many."""
    ids = [row["id"] for row in rows if subscription.wants(event_of(row))]
    if ids:
        first, last = rows[0], rows[-1]
        bounds = (first["xid"], first["id"], last["xid"], last["id"])
        await connection.fetch(statement("log_again"), subscription.name, *bounds, ids)
    return len(ids)


async def replay_since(database: Database, subscription: Subscription, since: datetime) -> int:
    """Send again, under their first ids, all kept events from a time on; how many.

    A page at a time, each in a transaction of its own: after an interruption, some are sent.
    """
    types = sorted(subscription.types)
    again = log_again if subscription.from_log else fan_out
    sent, xid, last_id = 0, "0", 0
    while True:
        async with database.transaction() as connection:
            rows = await connection.fetch(statement("events_since"), types, since, xid, last_id, BATCH)
            sent += await again(connection, subscription, rows)
        if len(rows) < BATCH:
            return sent
        xid, last_id = rows[-1]["xid"], rows[-1]["id"]


def told(error: Exception) -> str:
    """An error, and what to do where it says that."""
    return f"{error}. {getattr(error, 'hint', '')}".rstrip(". ")


def age(at: datetime | None) -> float:
    """Seconds since then, by this machine's clock; 0 for None."""
    return 0.0 if at is None else max(0.0, time.time() - at.timestamp())


def event_of(row: Record) -> Event:
    """A row of the event log."""
    return Event(
        id=row["event_id"],
        type=EventType(row["type"]),
        job_id=row["job_id"],
        sequence=row["sequence"],
        queue=row["queue"],
        at=row["at"],
        data=json.loads(row["data"]),
    )
