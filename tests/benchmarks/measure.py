"""What one round measured, and how rounds of ours and of the limit become a ratio that can miss its bar."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import asyncpg


@dataclass(slots=True, kw_only=True)
class Measure:
    """One round: things done, seconds, CPU seconds of this process, WAL bytes of the server."""

    done: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    wal: int = 0

    @property
    def rate(self) -> float:
        """Things a second."""
        return self.done / self.seconds if self.seconds else 0.0


@asynccontextmanager
async def measured(dsn: str, done: int) -> AsyncIterator[Measure]:
    """Measure the block, in which `done` things are done."""
    connection = await asyncpg.connect(dsn)
    try:
        measure = Measure(done=done)
        before = await connection.fetchval("select pg_current_wal_lsn() - '0/0'")
        cpu, started = time.process_time(), time.perf_counter()
        yield measure
        measure.seconds = time.perf_counter() - started
        measure.cpu = time.process_time() - cpu
        after = await connection.fetchval("select pg_current_wal_lsn() - '0/0'")
        measure.wal = int(after - before)
    finally:
        await connection.close()


Round = Callable[[str], Awaitable[Measure]]
"""One round on a fresh, migrated database, given by its DSN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table: ours beside the limit, and the share of it that we hold ourselves to."""

    name: str
    ours: Round
    limit: Round
    limit_is: str
    bar: float


@dataclass(slots=True, kw_only=True)
class Outcome:
    """A row after all its rounds."""

    row: Row
    ours: list[Measure] = field(default_factory=list)
    limit: list[Measure] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median of the ratios round by round: the machine's drift falls out."""
        return median(o.rate / b.rate for o, b in zip(self.ours, self.limit, strict=True))

    @property
    def missed(self) -> bool:
        return self.ratio < self.row.bar

    def line(self) -> str:
        ours, limit = median(m.rate for m in self.ours), median(m.rate for m in self.limit)
        spread = [o.rate / b.rate for o, b in zip(self.ours, self.limit, strict=True)]
        wal = median(m.wal / m.done for m in self.ours)
        cpu = median(m.cpu / m.done for m in self.ours) * 1e6
        return (
            f"{self.row.name:<16} {ours:>9,.0f}/s  {limit:>9,.0f}/s  {self.row.limit_is:<34}"
            f" {self.ratio:>5.2f} ({min(spread):.2f}-{max(spread):.2f})  bar {self.row.bar:.2f}"
            f"  {wal:>6,.0f} B WAL  {cpu:>5.0f} us CPU  {'MISS' if self.missed else 'ok'}"
        )


def write_json(outcomes: list[Outcome], path: Path) -> None:
    """Every round of every row, for charts and comparisons."""
    path.write_text(
        json.dumps(
            [
                {
                    "row": outcome.row.name,
                    "bar": outcome.row.bar,
                    "ratio": outcome.ratio,
                    "ours": [asdict(m) for m in outcome.ours],
                    "limit": [asdict(m) for m in outcome.limit],
                }
                for outcome in outcomes
            ],
            indent=2,
        )
    )
