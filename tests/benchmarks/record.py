"""The record: benchmarks.json, every round of every row and every point of a series, and what it ran on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from hammerwork.core.job import Json

from .growth.series import Experiment, Point
from .row import Verdict
from .suite import Outcome

PATH = Path("benchmarks.json")


class Record:
    """What was measured so far. Whatever is measured again takes the place of its older self, so each part
    keeps when and on what it was measured."""

    def __init__(self, path: Path = PATH) -> None:
        self._path = path
        self._parts: dict[str, dict[str, Json]] = {"rows": {}, "growth": {}}
        if path.exists():
            self._parts |= json.loads(path.read_text())

    @property
    def rows(self) -> dict[str, Json]:
        """By name, in the order in which they were first measured."""
        return self._parts["rows"]

    @property
    def growth(self) -> dict[str, Json]:
        """By the experiment's name."""
        return self._parts["growth"]

    def add_row(self, outcome: Outcome, where: dict[str, Json]) -> None:
        self.rows[outcome.row.name] = {
            "title": outcome.row.title,
            **where,
            "rounds": {side: [asdict(m) for m in measures] for side, measures in outcome.rounds.items()},
            "columns": [column.name for column in outcome.row.columns],
            "absent": outcome.absent,
            "bars": [_bar(verdict) for verdict in outcome.verdicts],
        }
        self._write()

    def add_growth(self, experiment: Experiment, points: Sequence[Point], where: dict[str, Json]) -> None:
        self.growth[experiment.name] = {
            "title": experiment.title,
            "grows": experiment.grows,
            **where,
            "charts": experiment.charts,
            "points": [asdict(point) for point in points],
        }
        self._write()

    def _write(self) -> None:
        self._path.write_text(json.dumps(self._parts, indent=1))


def whereabouts(machine: dict[str, str], versions: dict[str, str]) -> dict[str, Json]:
    """When and on what something was measured."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "versions": versions,
    }


def _bar(verdict: Verdict) -> Json:
    return {
        "side": verdict.bar.side,
        "beside": verdict.bar.beside,
        "metric": verdict.bar.metric.name,
        "values": list(verdict.values),
        "word": verdict.word,
        "what": verdict.what,
        "figure": verdict.figure,
        "limit": verdict.limit,
    }
