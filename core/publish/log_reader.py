"""LogReader: slices of the event log for a log sink, cut where no job's events are torn apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

import structlog

from ..errors import StateConflict
from ..event import LoggedEvent
from ..postgres.database import Database, statement
from .reading import Look, Place, look
from .relay import Subscription

log = structlog.get_logger(__name__)

BATCH = 2000
"""Events a look: one send, and one write of the position, of which the price is then shared by many."""

MOST_LOOKS = 10
"""How many looks are held at most, waiting for a place where they can be cut."""


class Slice(NamedTuple):
    """The next events, the place behind them, and whether there are more at once."""

    events: Sequence[LoggedEvent]
    end: Place
    more: bool


class _Found(NamedTuple):
    """A look, the horizon of its transaction, and what of the same jobs has committed beyond that."""

    look: Look
    beyond: Mapping[UUID, int]


class LogReader:
    """Reads on from a place.

    The log is in (xid, id) order, which is the order of a job's changes but for transactions that overlapped:
    one that began first may have written to the job last. So a slice ends where no event behind it belongs
    before one in it, as far as a look ahead and all that has committed tell; and within the slice the events
    of a job go by their sequence. Where such a transaction wrote more than thousands of events between, the
    later one goes first: the sequence number says so.
    """

    def __init__(
        self, database: Database, subscription: Subscription, start: Place, of_log: str, *, batch: int = BATCH
    ) -> None:
        self._database = database
        self._subscription = subscription
        self._of_log = of_log
        self._batch = batch
        self._end = start
        self._held: list[LoggedEvent] = []
        """Read and not handed out, in the order of the log."""

    async def next(self) -> Slice | None:
        """The next slice, maybe an empty one; None when the sink is paused, disabled or removed.

        Raises Unavailable, and can then be called again.
        """
        while True:
            if (found := await self._find()) is None:
                return None
            source = self._subscription.source
            self._held += [LoggedEvent._make((*row, source)) for row in found.look.rows]
            # Of a full look the last part only shows what lies ahead.
            most = len(self._held) - self._batch if found.look.full else len(self._held)
            torn = torn_by(self._held, found.beyond)
            cut = cut_of(torn, most)
            if cut == 0 and found.look.full:
                if len(self._held) < MOST_LOOKS * self._batch:
                    continue
                log.warning("events of a job may overtake one another", sink=self._subscription.name)
                cut = most
            return self._slice(cut, found.look, ordered=not torn)

    def _slice(self, cut: int, found: Look, *, ordered: bool) -> Slice:
        events, self._held = self._held[:cut], self._held[cut:]
        if not self._held and not found.full:
            self._end = max(self._end, found.end)
        elif events:
            self._end = Place(int(events[-1].xid), events[-1].log_id)
        return Slice(events if ordered else in_order(events), self._end, found.full)

    async def _find(self) -> _Found | None:
        name, held = self._subscription.name, self._held
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(statement("look_at_sink"), name)
            if row is None:
                return None
            if row["log"] != self._of_log:
                # What the new primary never had is written anew, at places that we have passed.
                raise StateConflict("another server is the primary now; its position counts")
            after = Place(int(held[-1].xid), held[-1].log_id) if held else self._end
            found = await look(connection, name, row["types"], after, row["horizon"], self._batch)
            beyond: dict[UUID, int] = {}
            if not found.full and (jobs := {*_jobs(held), *(r["job_id"] for r in found.rows)} - {None}):
                rows = await connection.fetch(
                    statement("events_beyond"), row["types"], row["horizon"], list(jobs)
                )
                beyond = {r["job_id"]: r["sequence"] for r in rows}
        return _Found(found, beyond)


def _jobs(events: Sequence[LoggedEvent]) -> set[UUID | None]:
    return {event.job_id for event in events}


def torn_by(events: Sequence[LoggedEvent], beyond: Mapping[UUID, int]) -> list[tuple[int, int]]:
    """Pairs of places that a cut behind the first, and not behind the second, would tear out of their order.

    `beyond` holds the lowest sequence numbers, by job, of what lies behind all of these events.
    """
    highest: dict[UUID | None, int] = {}
    torn: list[tuple[int, int]] = []
    for place, (_, _, _, job, sequence, _, _, _, _, again, _) in enumerate(events):
        if sequence < highest.get(job, 0):
            if job is not None and not again:
                torn.append((_first_behind(events, job, sequence), place))
        elif not again:
            highest[job] = sequence
    for job, sequence in beyond.items():
        if sequence < highest.get(job, 0):
            torn.append((_first_behind(events, job, sequence), len(events)))
    return torn


def cut_of(torn: Sequence[tuple[int, int]], most: int) -> int:
    """How many of the first `most` events can be handed out so that no later one belongs before them."""
    cut = max(most, 0)
    while tears := [first for first, second in torn if first < cut <= second]:
        cut = min(tears)
    return cut


def _first_behind(events: Sequence[LoggedEvent], job: UUID, sequence: int) -> int:
    """The place of the job's first event that belongs behind this sequence number."""
    return next(
        place
        for place, event in enumerate(events)
        if event.job_id == job and event.sequence > sequence and not event.again
    )


def in_order(events: Sequence[LoggedEvent]) -> Sequence[LoggedEvent]:
    """The same events, those of each job in the order of its sequence, in the places that they had."""
    places: dict[UUID, list[int]] = {}
    swapped: set[UUID] = set()
    for place, event in enumerate(events):
        job = event.job_id
        if job is None or event.again:
            continue
        mine = places.setdefault(job, [])
        if mine and event.sequence < events[mine[-1]].sequence:
            swapped.add(job)
        mine.append(place)
    ordered = list(events)
    for job in swapped:
        mine = places[job]
        for place, event in zip(
            mine, sorted((events[p] for p in mine), key=lambda e: e.sequence), strict=True
        ):
            ordered[place] = event
    return ordered
