"""Series: the points of one experiment, and which of their figures are drawn together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..arena import Servers

Figures = Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What was measured at one value of what grows."""

    at: str
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says: empty `sizes` are the experiment's own."""

    sizes: Sequence[int] = ()
    minutes: float = 10.0
    rate: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One thing that grows. `charts` names the figures of each chart, which share its unit."""

    name: str
    title: str
    grows: str
    run: Callable[[Servers, Options], AsyncIterator[Point]]
    charts: Mapping[str, Sequence[str]] = field(default_factory=dict)
