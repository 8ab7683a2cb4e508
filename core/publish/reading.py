"""Reading the event log: in (xid, id) order, below the horizon, from a place on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

from ..errors import Misconfigured
from ..postgres.database import Connection, Record, statement

SOONEST, LATEST = 0.02, 0.5
"""Seconds between looks for events, while they come and when none have come for a while."""

PASS_OVER_EVERY = 10.0
"""Seconds after which a sink moves past events that it does not want, although none came that it wants."""


class Place(NamedTuple):
    """A place in the event log, behind the event with these numbers. Places compare as the log is ordered."""

    xid: int
    id: int

    @classmethod
    def of(cls, row: Record) -> Self:
        return cls(int(row["xid"]), row["id"])


def refuse_ahead(sink: str, row: Record) -> None:
    """Raises Misconfigured for a position (a row of look_at_sink.sql or sink_position.sql) in the future:
    what happens now would lie behind it, and be passed over in silence."""
    if row["ahead"]:
        raise Misconfigured(
            f"the position of sink {sink!r} is ahead of this server's transactions: the database was restored"
            " from another one",
            hint=f"`hammerwork sink remove {sink}` lets it begin anew at present; `hammerwork sink replay"
            f" {sink} --since` a time shortly before the backup then sends what may be missing",
        )


class Look(NamedTuple):
    """What one look found: rows of the log, the place behind them, and whether there may be more at once."""

    rows: Sequence[Record]
    end: Place
    full: bool


async def look(
    connection: Connection, sink: str, types: Sequence[str], after: Place, horizon: str, limit: int
) -> Look:
    """The next events of these types. The place behind a look that is not full is the horizon, so that what
    other sinks want is not read again and again.

    `horizon` is what the caller's transaction has read together with the position: no transaction below it
    still runs, so nothing commits behind us.
    """
    rows = await connection.fetch(
        statement("read_events"), sink, types, str(after.xid), after.id, horizon, limit
    )
    full = len(rows) == limit
    return Look(rows, Place.of(rows[-1]) if full else max(after, Place(int(horizon), 0)), full)
