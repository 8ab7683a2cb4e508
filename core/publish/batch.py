"""A batch of events on its way to a log sink: what is still to be sent, and what has died on the way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple, assert_never
from uuid import UUID

from ..errors import HammerworkError
from ..event import LoggedEvent
from ..ingest.burial import DETAIL_LENGTH, REASON_LENGTH, storable
from ..job import Cancel, Dead, Done, Outcome, Retry, Snooze
from ..postgres.database import Connection, columns, statement
from .relay import Subscription


class Letter(NamedTuple):
    """A row of bury_events.sql."""

    id: UUID
    event_id: str
    reason: str
    detail: str
    body: bytes
    coordinates: str
    attempts: int


@dataclass(slots=True)
class Verdict:
    """What came of one send. `reason`: why something is tried again. `delay`: how many seconds that asks to
    wait."""

    taken: int = 0
    retried: int = 0
    dead: int = 0
    reason: str = ""
    delay: float = 0.0

    def waits(self, delay: timedelta | None) -> None:
        if delay is not None:
            self.delay = max(self.delay, delay.total_seconds())


class Batch:
    """The wanted events of one slice of the log."""

    def __init__(self, events: Sequence[LoggedEvent], subscription: Subscription) -> None:
        self.events = subscription.chosen(events)
        self.pending: Sequence[LoggedEvent] = self.events
        self.letters: list[Letter] = []
        self._sink = subscription.name
        self._sends = 0

    def judge(self, outcomes: Sequence[Outcome]) -> Verdict:
        """Leave in `pending` what is to be sent again, and put what is dead among the letters."""
        if len(outcomes) != len(self.pending):
            raise HammerworkError(
                f"the sink answered {len(outcomes)} outcomes for {len(self.pending)} events"
            )
        self._sends += 1
        verdict, left = Verdict(), []
        for event, outcome in zip(self.pending, outcomes, strict=True):
            match outcome:
                case Done():
                    verdict.taken += 1
                case Retry(reason=reason, delay=delay):
                    verdict.retried += 1
                    verdict.reason = verdict.reason or reason or "not taken"
                    verdict.waits(delay)
                    left.append(event)
                case Snooze(delay=delay):
                    verdict.waits(delay)
                    left.append(event)
                case Dead(reason=reason) | Cancel(reason=reason):
                    verdict.dead += 1
                    self.letters.append(self._letter(event, reason))
                case _:
                    assert_never(outcome)
        self.pending = left
        return verdict

    def _letter(self, event: LoggedEvent, reason: str) -> Letter:
        code, _, detail = storable(reason).partition(": ")
        return Letter(
            id=letter_id(self._sink, event),
            event_id=str(event.id),
            reason=code[:REASON_LENGTH] or "refused",
            detail=detail[:DETAIL_LENGTH],
            body=event.cloud_event().encode(),
            coordinates=json.dumps({"xid": event.xid, "id": event.log_id}),
            attempts=self._sends,
        )


def letter_id(sink: str, event: LoggedEvent) -> UUID:
    """A UUIDv7 of the event's time that is a function of its place in the log: buried twice, it is one."""
    place = f"{sink}\x1f{event.xid}\x1f{event.log_id}".encode()
    bits = int.from_bytes(blake2b(place, digest_size=10).digest(), "big")
    milliseconds = int(event.at.timestamp() * 1000)
    rest = bits & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62
    return UUID(int=milliseconds << 80 | rest)


async def bury_events(connection: Connection, queue: str, letters: Sequence[Letter]) -> None:
    """Store dead letters of a sink in the caller's transaction."""
    if letters:
        ids, *others = columns(letters, len(Letter._fields))
        await connection.fetch(statement("bury_events"), ids, queue, *others)


class Told(NamedTuple):
    """What log_letter_again.sql takes, after the sink."""

    event_id: UUID
    job_id: UUID | None
    sequence: int
    type: str
    queue: str | None
    data: str
    at: datetime


def told_by(body: bytes) -> Told:
    """The event that a letter of a log sink holds."""
    event = json.loads(body)
    data = dict(event["data"])
    job_id, queue = data.pop("job_id"), data.pop("queue")
    return Told(
        UUID(event["id"]),
        UUID(job_id) if job_id else None,
        int(event["sequence"]),
        event["type"].removeprefix("dev.hammerwork."),
        queue,
        json.dumps(data, ensure_ascii=False),
        datetime.fromisoformat(event["time"]),
    )
