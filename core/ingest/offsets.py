"""How far each partition of a log was read: kept in Postgres, fenced against owners of before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from ..message import Delivery
from ..postgres.database import Connection, Database, columns, statement
from .item import Item


@dataclass(frozen=True, slots=True)
class Held:
    """A partition that is ours: under which fence, and the offset that is stored next (None: not begun)."""

    fence: int
    next_offset: int | None


@dataclass(frozen=True, slots=True)
class Move:
    """What a transaction does to one partition's offset."""

    partition: str
    fence: int
    start: int
    end: int
    """The offset after the last one that is stored."""


class KeptOffsets:
    """Implements `core.message.Offsets` for one bridge, and moves the offsets in the intake's transactions.

    A partition is ours from `take` until `leave`, or until a `move` finds that somebody else took it.
    """

    def __init__(self, database: Database, bridge: str) -> None:
        self._database = database
        self._bridge = bridge
        self._held: dict[str, Held] = {}
        self.robbed: set[str] = set()
        """Partitions that somebody took although the bridge had not left them: a pause of ours was too long,
        or two bridges of one name read as two groups."""

    async def take(self, partitions: Sequence[str]) -> Mapping[str, int | None]:
        rows = await self._database.fetch("take_offsets", self._bridge, sorted(partitions))
        self.robbed.difference_update(partitions)
        for row in rows:
            self._held[row["partition"]] = Held(row["fence"], row["next_offset"])
        return {row["partition"]: row["next_offset"] for row in rows}

    async def begin(self, starts: Mapping[str, int]) -> None:
        rows = [(p, self._held[p].fence, offset) for p, offset in starts.items() if p in self._held]
        begun = await self._database.fetch("begin_offsets", self._bridge, *columns(rows, 3))
        ours = {row["partition"] for row in begun}
        for partition, fence, offset in rows:
            if (held := self._held.get(partition)) is None or held.fence != fence:
                continue
            if partition in ours:
                self._held[partition] = Held(fence, offset)
            else:
                self._rob(partition)

    def leave(self, partitions: Sequence[str]) -> None:
        for partition in partitions:
            self._held.pop(partition, None)

    def leave_all(self) -> None:
        """The bridge is closed. Who robbed us is history: what is ours next time, the group says."""
        self._held.clear()
        self.robbed.clear()

    # --- the intake's side ---

    async def look(self) -> None:
        """Find out what was taken from us, or moved by an operator, without storing anything."""
        rows = await self._database.fetch("list_offsets", self._bridge)
        fences = {row["partition"]: row["fence"] for row in rows}
        for partition in [name for name, held in self._held.items() if fences.get(name) != held.fence]:
            self._rob(partition)

    def fenced(self, deliveries: Iterable[Delivery]) -> tuple[list[Delivery], list[int]]:
        """Those that are ours to store, and the fence under which each is: without what was stored before,
        and what is of a partition that is not ours."""
        ours: list[Delivery] = []
        fences: list[int] = []
        for delivery in deliveries:
            position = delivery.position
            held = None if position is None else self._held.get(position.partition)
            if position is None or held is None or held.next_offset is None:
                continue
            if position.offset >= held.next_offset:
                ours.append(delivery)
                fences.append(held.fence)
        return ours, fences

    def moves(self, items: Iterable[Item]) -> list[Move]:
        """How far these items move their partitions, as far as they are ours as they were when the items were
        pulled: of a partition that was left and taken again, what was in hand may begin after a gap."""
        ends: dict[str, int] = {}
        for item in items:
            position = item.delivery.position
            held = None if position is None else self._held.get(position.partition)
            if position is not None and held is not None and held.fence == item.fence:
                ends[position.partition] = position.offset + 1
        return [
            Move(partition, held.fence, held.next_offset, end)
            for partition, end in sorted(ends.items())
            if (held := self._held[partition]).next_offset is not None
        ]

    async def move(self, connection: Connection, moves: Sequence[Move]) -> set[str]:
        """Move offsets in the caller's transaction; the partitions that were still ours."""
        if not moves:
            return set()
        rows = [(m.partition, m.fence, m.start, m.end) for m in moves]
        moved = await connection.fetch(statement("move_offsets"), self._bridge, *columns(rows, 4))
        return {row["partition"] for row in moved}

    async def stand(self, connection: Connection, moves: Sequence[Move]) -> set[str]:
        """Of moves whose COMMIT is unknown, the partitions that it has moved."""
        rows = await connection.fetch(statement("list_offsets"), self._bridge)
        known = {row["partition"]: (row["fence"], row["next_offset"]) for row in rows}
        return {m.partition for m in moves if known.get(m.partition) == (m.fence, m.end)}

    def moved(self, moves: Iterable[Move], stored: Set[str]) -> None:
        """These moves came to their end: committed are those of the partitions that are `stored`; of the
        others somebody else is the owner."""
        for move in moves:
            held = self._held.get(move.partition)
            if held is None or held.fence != move.fence:
                continue
            if move.partition in stored:
                self._held[move.partition] = Held(move.fence, move.end)
            else:
                self._rob(move.partition)

    def _rob(self, partition: str) -> None:
        del self._held[partition]
        self.robbed.add(partition)
