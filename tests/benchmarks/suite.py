"""The suite: every side of a row in turn, round by round, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..services import ServiceMissing
from .arena import Servers
from .measure import Measure
from .row import Absent, Row, Side, Verdict


@dataclass(slots=True, kw_only=True)
class Outcome:
    """A row after its rounds."""

    row: Row
    rounds: dict[str, list[Measure]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    """Sides that could not be run, and why."""

    @property
    def verdicts(self) -> Sequence[Verdict]:
        return [bar.judge(self.rounds) for bar in self.row.bars]

    @property
    def missed(self) -> bool:
        return any(verdict.word == "MISS" for verdict in self.verdicts)


async def measure(servers: Servers, row: Row, rounds: int) -> Outcome:
    """Interleaved, so that whatever drifts on the machine meets all sides alike."""
    outcome = Outcome(row=row)
    for number in range(rounds):
        for side in row.sides:
            if side.name in outcome.absent:
                continue
            _tell(f"{row.name}: round {number + 1} of {rounds}, {side.name}")
            try:
                measured = await _once(servers, side)
            except (Absent, ServiceMissing) as missing:
                outcome.absent[side.name] = str(missing)
            else:
                outcome.rounds.setdefault(side.name, []).append(measured)
    _tell("")
    return outcome


async def _once(servers: Servers, side: Side) -> Measure:
    async with servers.arena(side.stage) as arena:
        measured = await side.run(arena)
        measured.dead_rows = await arena.dead_rows()
    return measured


def _tell(progress: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{progress}", end="", file=sys.stderr, flush=True)
