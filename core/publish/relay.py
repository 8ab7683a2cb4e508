"""Relay: the event log to one sink, in order, from a durable position that moves with what it made."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

import asyncpg
import structlog

from ..backoff import Backoff
from ..errors import HammerworkError, Misconfigured
from ..event import Event, EventType
from ..expression import Condition
from ..identity import new_id, slot_of
from ..job import SINK_QUEUE_PREFIX, Job, check_name
from ..postgres import store
from ..postgres.database import Connection, Database, Record, statement
from ..postgres.duty import Duty
from ..status import Status

log = structlog.get_logger(__name__)

BATCH = 500
SOONEST, LATEST = 0.02, 0.5
"""Seconds between looks for events, while they come and when none have come for a while."""

PASS_OVER_EVERY = 10.0
"""Seconds after which a sink moves past events that it does not want, although none came that it wants."""

HOLD_DUTY = timedelta(seconds=10)
FILTER_VARIABLES = ("type", "queue", "job_id", "sequence", "data")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Which events a sink wants: types, queues by glob pattern (none: all), and a CEL condition over
    `type`, `queue`, `job_id`, `sequence` and `data`.

    `source` is the `source` of the CloudEvents, `max_attempts` how often one delivery is tried.
    """

    name: str
    types: frozenset[EventType] = frozenset(
        {EventType.COMPLETED, EventType.FAILED, EventType.DEAD, EventType.CANCELLED}
    )
    queues: tuple[str, ...] = ()
    condition: Condition | None = None
    source: str = "/hammerwork"
    max_attempts: int = 10

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

    def wants(self, event: Event) -> bool:
        """Whether this event is for the sink. A condition that fails on an event counts as yes: better one
        event too many than one lost."""
        if event.type not in self.types:
            return False
        if self.queues and not any(fnmatchcase(event.queue or "", pattern) for pattern in self.queues):
            return False
        if self.condition is None:
            return True
        values = {
            "type": str(event.type),
            "queue": event.queue,
            "job_id": str(event.job_id) if event.job_id else None,
            "sequence": event.sequence,
            "data": dict(event.data),
        }
        return self.condition.holds(values, otherwise=True)

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
    """What a relay has done since it started; read by telemetry."""

    events: int = 0
    deliveries: int = 0
    batches: int = 0


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
        self._kind = kind
        self._moved_at = time.monotonic()
        self._duty = Duty(database, f"relay.{subscription.name}", hold=HOLD_DUTY)

    async def run(self) -> None:
        """Relay until cancelled."""
        backoff, rest = Backoff(), SOONEST
        try:
            await self._register(backoff)
            while True:
                try:
                    rest = await self._turn(rest)
                    backoff.reset()
                except (HammerworkError, asyncpg.PostgresError) as error:
                    self.status.holding(str(error))
                    rest = backoff.next()
                    log.warning("relay held", sink=self.subscription.name, error=str(error))
                await asyncio.sleep(rest)
        finally:
            self.status.stopped()
            await self._duty.leave()

    async def _register(self, backoff: Backoff) -> None:
        subscription = self.subscription
        types = sorted(subscription.types)
        while True:
            try:
                await self._database.fetch("register_sink", subscription.name, self._kind, types)
                return
            except HammerworkError as error:
                self.status.holding(str(error))
                await asyncio.sleep(backoff.next())

    async def _turn(self, rest: float) -> float:
        """One batch, if the duty is ours; how long to rest after it."""
        if not await self._duty.ours():
            self.status.running()
            return HOLD_DUTY.total_seconds() / 5
        taken = await self.relay_once()
        self.status.running()
        if taken == BATCH:
            return 0.0
        return SOONEST if taken else min(rest * 1.5, LATEST)

    async def relay_once(self) -> int:
        """Take the next batch of events, at most BATCH; how many there were."""
        subscription, delivered = self.subscription, 0
        async with self._database.transaction() as connection:
            position = await connection.fetchrow(statement("sink_position"), subscription.name)
            if position is None:
                return 0
            rows = await connection.fetch(
                statement("read_events"),
                position["types"], position["xid"], position["id"], position["horizon"], BATCH,
            )  # fmt: skip
            if rows:
                delivered = await fan_out(connection, subscription, rows)
            if place := self._place_after(rows, position["horizon"]):
                await connection.fetch(statement("advance_sink"), subscription.name, *place)
        if rows:
            self.counts.batches += 1
            self.counts.events += len(rows)
            self.counts.deliveries += delivered
            self.status.progressed()
        return len(rows)

    def _place_after(self, rows: Sequence[Record], horizon: str) -> tuple[str, int] | None:
        """Where the next look begins: behind a full batch, else at the horizon, so that what other sinks want
        is not read again and again. None: nothing came, and the last move is young."""
        now = time.monotonic()
        if not rows and now < self._moved_at + PASS_OVER_EVERY:
            return None
        self._moved_at = now
        return (rows[-1]["xid"], rows[-1]["id"]) if len(rows) == BATCH else (horizon, 0)


async def fan_out(connection: Connection, subscription: Subscription, rows: Sequence[Record]) -> int:
    """Store a delivery for each wanted event, in the caller's transaction; how many."""
    jobs = [subscription.delivery(event) for event in map(event_of, rows) if subscription.wants(event)]
    await store.enqueue_fresh(connection, [store.row_of(job) for job in jobs], announce=[subscription.queue])
    return len(jobs)


async def replay_since(database: Database, subscription: Subscription, since: datetime) -> int:
    """Deliver again, under their first ids, all kept events from a time on; how many.

    A page at a time, each in a transaction of its own: after an interruption, some are delivered.
    """
    types = sorted(subscription.types)
    delivered, xid, last_id = 0, "0", 0
    while True:
        async with database.transaction() as connection:
            rows = await connection.fetch(statement("events_since"), types, since, xid, last_id, BATCH)
            delivered += await fan_out(connection, subscription, rows)
        if len(rows) < BATCH:
            return delivered
        xid, last_id = rows[-1]["xid"], rows[-1]["id"]


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
