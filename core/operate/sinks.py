"""Acts on sinks and their deliveries: pause, disable, resume, remove, replay."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from ..errors import NotFound, StateConflict
from ..postgres.database import Database
from ..publish.relay import Subscription, replay_since
from .jobs import retry


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkInfo:
    """A sink's state, how many wanted events are ahead of its position (capped at 10001), and how old the
    oldest of those is."""

    name: str
    kind: str
    types: list[str]
    state: str
    reason: str | None
    position_xid: str
    position_id: int
    failing_since: datetime | None
    registered_at: datetime
    behind: int
    lag: timedelta | None


async def sinks(database: Database) -> list[SinkInfo]:
    return [SinkInfo(**row) for row in await database.fetch("list_sinks")]


async def pause_sink(database: Database, sink: str, reason: str = "") -> None:
    """Hold the sink's events and deliveries until `resume_sink`. NotFound."""
    await _set_sink(database, sink, "paused", reason)


async def disable_sink(database: Database, sink: str, reason: str) -> None:
    """What the framework does to a sink that is gone; as `pause_sink`, with an operator event."""
    await _set_sink(database, sink, "disabled", reason)


async def resume_sink(database: Database, sink: str) -> None:
    """Go on where the sink stopped. NotFound."""
    await _set_sink(database, sink, "active", None)
    await database.fetch("announce", [f"queue sink.{sink}"])


async def remove_sink(database: Database, sink: str) -> None:
    """Forget a sink that is not configured any more: its position goes, so events are not kept for it.

    Its waiting deliveries stay in the queue `sink.<name>`. Raises NotFound, and StateConflict while a
    gateway relays to it.
    """
    if await database.fetch("remove_sink", sink):
        return
    if sink in {known.name for known in await sinks(database)}:
        raise StateConflict(f"a gateway relays to sink {sink!r}: take it out of its settings first")
    raise NotFound(f"no sink {sink!r}")


async def _set_sink(database: Database, sink: str, state: str, reason: str | None) -> None:
    if not await database.fetch("set_sink_state", sink, state, reason) and sink not in {
        known.name for known in await sinks(database)
    }:
        raise NotFound(f"no sink {sink!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """One try to deliver one event. `outcome`: done, retry, dead, …"""

    sink: str
    job_id: UUID
    event_id: str
    attempt: int
    status: int | None
    error: str | None
    ran: timedelta
    response: str
    outcome: str
    at: datetime


async def deliveries(
    database: Database, sink: str, *, failed: bool = False, limit: int = 50
) -> list[DeliveryRecord]:
    """The sink's delivery log, newest first."""
    rows = await database.fetch("list_deliveries", sink, failed, limit)
    return [DeliveryRecord(**row) for row in rows]


async def replay_delivery(database: Database, job_id: UUID) -> None:
    """Deliver one event again, under the same event id: the retry of its delivery job."""
    await retry(database, job_id)


async def replay_sink_since(database: Database, subscription: Subscription, since: datetime) -> int:
    """Send all kept events from a time on again, under their first ids; how many."""
    return await replay_since(database, subscription, since)
