"""Acts on bridges: pause, resume, and moving to another offset of a log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..errors import Misconfigured, NotFound, StateConflict
from ..postgres.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeRecord:
    """A bridge as the database knows it. `seen_at`: when a gateway last opened it."""

    name: str
    kind: str
    seen_at: datetime
    paused_at: datetime | None
    pause_reason: str | None

    @property
    def state(self) -> str:
        return "active" if self.paused_at is None else "paused"


async def bridges(database: Database) -> list[BridgeRecord]:
    """Every bridge that a gateway has opened."""
    return [BridgeRecord(**row) for row in await database.fetch("list_bridges")]


async def pause_bridge(database: Database, name: str, reason: str = "") -> None:
    """The bridge pulls nothing more, in any gateway, within a second or two, until `resume_bridge`. Its
    messages wait at the broker. NotFound."""
    if not await database.fetch("pause_bridge", name, reason):
        raise NotFound(f"no gateway has opened a bridge {name!r}")


async def resume_bridge(database: Database, name: str) -> bool:
    """Pull again; whether the bridge was paused. NotFound."""
    rows = await database.fetch("resume_bridge", name)
    if not rows:
        raise NotFound(f"no gateway has opened a bridge {name!r}")
    return bool(rows[0]["paused"])


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionOffset:
    """How far a partition of a log was read. `next_offset` None: it was taken and not begun. `fence` rises
    with every owner and every `seek_bridge`."""

    partition: str
    next_offset: int | None
    fence: int
    moved_at: datetime


async def bridge_offsets(database: Database, name: str) -> list[PartitionOffset]:
    """The partitions that a log bridge has ever read; none for other bridges. NotFound."""
    rows = await database.fetch("list_offsets", name)
    if not rows:
        await _known_bridge(database, name)
    return [PartitionOffset(**row) for row in rows]


async def seek_bridge(database: Database, name: str, partition: str, offset: int) -> int | None:
    """Go on at another offset of a partition; the one before. What a gateway has in hand of it is not stored.

    Back: what lies between is read again, and stored again unless its identity is known. On: it is never
    read. Raises NotFound, and StateConflict while the bridge is not paused.
    """
    if offset < 0:
        raise Misconfigured(f"an offset is 0 or more, not {offset}")
    rows = await database.fetch("seek_bridge", name, partition, offset)
    if rows:
        before: int | None = rows[0]["before"]
        return before
    known = [kept.partition for kept in await bridge_offsets(database, name)]
    if partition not in known:
        there_are = ", ".join(known) or "none"
        raise NotFound(f"bridge {name!r} has never read a partition {partition!r} (there are: {there_are})")
    raise StateConflict(f"bridge {name!r} is not paused: pause it, seek, resume it")


async def _known_bridge(database: Database, name: str) -> BridgeRecord:
    for bridge in await bridges(database):
        if bridge.name == name:
            return bridge
    raise NotFound(f"no gateway has opened a bridge {name!r}")
