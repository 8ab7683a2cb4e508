"""The record: benchmarks.json, every round of every row, with the machine and the versions it was made on."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from hammerwork.core.job import Json

from .row import Verdict
from .suite import Outcome

PATH = Path("benchmarks.json")


def read(path: Path = PATH) -> dict[str, Json]:
    """What was recorded so far: rows by name."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(outcome: Outcome, machine: dict[str, str], versions: dict[str, str], path: Path = PATH) -> None:
    """Put the row in the place of its older self; every row keeps when and on what it was measured."""
    rows = read(path)
    rows[outcome.row.name] = {
        "title": outcome.row.title,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "versions": versions,
        "rounds": {side: [asdict(m) for m in measures] for side, measures in outcome.rounds.items()},
        "absent": outcome.absent,
        "bars": [_bar(verdict) for verdict in outcome.verdicts],
    }
    path.write_text(json.dumps(rows, indent=1))


def _bar(verdict: Verdict) -> Json:
    bar = verdict.bar
    limits = {"least": bar.least} if bar.least > float("-inf") else {"most": bar.most}
    return {
        "metric": bar.metric.name,
        "side": bar.side,
        "beside": bar.beside,
        **limits,
        "values": list(verdict.values),
        "word": verdict.word,
        "text": verdict.text,
    }
