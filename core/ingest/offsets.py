"""How far each partition of a log was read, and by whom: kept in Postgres, fenced against owners of before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..message import Position
from ..postgres.database import Connection, Database, columns, statement


@dataclass(frozen=True, slots=True)
class Held:
    """A partition that is ours: under which fence, and the offset that is to be stored next (None: not begun)."""

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

    async def take(self, partitions: Sequence[str]) -> Mapping[str, int | None]:
        rows = await self._database.fetch("take_offsets", self._bridge, sorted(partitions))
        for row in rows:
            self._held[row["partition"]] = Held(row["fence"], row["next_offset"])
        return {row["partition"]: row["next_offset"] for row in rows}

    async def begin(self, starts: Mapping[str, int]) -> None:
        rows = [(p, self._held[p].fence, offset) for p, offset in starts.items() if p in self._held]
        begun = await self._database.fetch("begin_offsets", self._bridge, *columns(rows, 3))
        for row in begun:
            partition = row["partition"]
            self._held[partition] = Held(self._held[partition].fence, starts[partition])

    def leave(self, partitions: Sequence[str]) -> None:
        for partition in partitions:
            self._held.pop(partition, None)

    # --- the intake's side ---

    def holds(self, partition: str) -> bool:
        """Whether the partition is ours, as far as we know."""
        return partition in self._held

    def ahead(self, position: Position) -> bool:
        """Whether what stands there is ours to store: it was not stored before, and its partition is ours."""
        held = self._held.get(position.partition)
        return held is not None and held.next_offset is not None and position.offset >= held.next_offset

    def moves(self, positions: Iterable[Position]) -> list[Move]:
        """How far these positions, each `ahead`, move their partitions."""
        ends: dict[str, int] = {}
        for position in positions:
            ends[position.partition] = position.offset + 1
        moves = []
        for partition, end in sorted(ends.items()):
            held = self._held[partition]
            assert held.next_offset is not None
            moves.append(Move(partition, held.fence, held.next_offset, end))
        return moves

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

    def moved(self, moves: Iterable[Move]) -> None:
        """These moves are committed."""
        for move in moves:
            if move.partition in self._held:
                self._held[move.partition] = Held(move.fence, move.end)
