"""Row: sides that do the same thing, one after the other, round by round; and the bars that we must meet."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from .arena import Arena
from .measure import PER_THING, Measure, Metric
from .stages import Stage, migrated

OURS = "hammerwork"

Rounds = Mapping[str, Sequence[Measure]]
"""By side, its measure in each round. A side that could not be run has none."""


class Absent(Exception):
    """A side cannot be run on this machine; the text says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Who does it. `run` gets a fresh copy of the database that `stage` makes, once for all rounds.

    Raises Absent where the machine lacks something for it.
    """

    name: str
    run: Callable[[Arena], Awaitable[Measure]]
    stage: Stage = migrated


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What we hold ourselves to: a figure of `side`, or its ratio to that of `beside` in the same round."""

    metric: Metric
    side: str = OURS
    beside: str | None = None
    least: float = -math.inf
    most: float = math.inf

    def values(self, rounds: Rounds) -> list[float]:
        """One a round; none where a side is absent."""
        ours = [self.metric.of(measure) for measure in rounds.get(self.side, ())]
        if self.beside is None:
            return [value for value in ours if value is not None]
        theirs = [self.metric.of(measure) for measure in rounds.get(self.beside, ())]
        return [o / t for o, t in zip(ours, theirs, strict=False) if o is not None and t]

    def judge(self, rounds: Rounds) -> Verdict:
        return Verdict(bar=self, values=self.values(rounds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A bar after all rounds: the median counts, because the machine's drift falls out of a ratio."""

    bar: Bar
    values: Sequence[float]

    @property
    def word(self) -> str:
        """`ok`, `MISS`, or `absent` where it could not be measured."""
        if not self.values:
            return "absent"
        return "ok" if self.bar.least <= median(self.values) <= self.bar.most else "MISS"

    @property
    def what(self) -> str:
        bar = self.bar
        share = "" if bar.beside is None else f" as a share of {bar.beside}"
        return f"{bar.side}: {bar.metric.name}{share}"

    @property
    def figure(self) -> str:
        """The median and, in brackets, the spread."""
        if not self.values:
            return "not measured"
        low, middle, high = min(self.values), median(self.values), max(self.values)
        return f"{self._write(middle)} ({self._write(low)} to {self._write(high)})"

    @property
    def limit(self) -> str:
        bar = self.bar
        at_least = bar.most == math.inf
        return f"at least {self._write(bar.least)}" if at_least else f"at most {self._write(bar.most)}"

    def _write(self, value: float) -> str:
        return self.bar.metric.text(value) if self.bar.beside is None else f"{value:.2f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of performance: what is done, by whom, and the bars."""

    name: str
    title: str
    sides: Sequence[Side]
    bars: Sequence[Bar] = ()
    columns: Sequence[Metric] = PER_THING
