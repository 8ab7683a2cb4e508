"""`python -m tests.benchmarks [ROW …]`: tables, benchmarks.json and charts; exit 1 when a bar is missed.

`growth EXPERIMENT …` measures what grows, `report` writes docs/performance.md and its charts anew.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import structlog
import uvloop

from .arena import Servers
from .charts import draw_growth, draw_row
from .growth import EXPERIMENTS
from .growth.series import Options, Point
from .machine import machine, versions
from .peers import PEERS
from .record import Record, whereabouts
from .report import write_report
from .rows import ROWS
from .suite import measure
from .table import points_table, table

ROUNDS = 5
CHARTS = Path("build/bench/charts")


async def bars(names: Sequence[str], rounds: int, peers: Sequence[str]) -> int:
    """Measure the rows of these names, all of them where none is named, beside these peers."""
    left_out = {peer.name for peer in PEERS} - set(peers)
    chosen = [
        replace(row, sides=[side for side in row.sides if side.name not in left_out])
        for row in ROWS
        if not names or row.name in names
    ]
    servers, record, missed = Servers(), Record(), []
    try:
        where = whereabouts(machine(), await versions(servers))
        for row in chosen:
            outcome = await measure(servers, row, rounds)
            print(table(outcome), flush=True)
            record.add_row(outcome, where)
            draw_row(row.name, record.rows[row.name], CHARTS)
            if outcome.missed:
                missed.append(row.name)
    finally:
        servers.close()
    print(f"MISS: {', '.join(missed)}" if missed else "every bar that could be measured is met")
    return 1 if missed else 0


async def growth(names: Sequence[str], options: Options) -> int:
    """Measure these experiments, one after the other."""
    servers, record = Servers(), Record()
    try:
        where = whereabouts(machine(), await versions(servers))
        for name in names:
            experiment = EXPERIMENTS[name]
            points: list[Point] = []
            print(f"{name}: {experiment.title}, by {experiment.grows}")
            async for point in experiment.run(servers, options):
                points.append(point)
                print(points_table(points, last=True), flush=True)
                # At every point, so that a long run that is cut short is not lost.
                record.add_growth(experiment, points, where)
            draw_growth(name, record.growth[name], CHARTS)
    finally:
        servers.close()
    return 0


def main() -> int:
    arguments = _arguments()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    match arguments.names:
        case ["report"]:
            write_report(Record())
            return 0
        case ["growth", *experiments]:
            options = Options(sizes=arguments.sizes, minutes=arguments.minutes, rate=arguments.rate)
            return uvloop.run(growth(experiments, options))
        case rows:
            return uvloop.run(bars(rows, arguments.rounds, arguments.peers))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    rows, experiments = [row.name for row in ROWS], list(EXPERIMENTS)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="ROW",
        help=f"rows ({', '.join(rows)}); or growth and {', '.join(experiments)}; or report",
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="how often each side of a row takes its turn"
    )
    peers = [peer.name for peer in PEERS]
    parser.add_argument("--peers", nargs="*", choices=peers, default=peers, help="only these; none: no peer")
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=[], help="steps of what grows, its own if none"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long held and soak last")
    parser.add_argument("--rate", type=int, default=500, help="jobs a second in held and soak")
    arguments = parser.parse_args()
    names: list[str] = arguments.names
    known = experiments if names[:1] == ["growth"] else [*rows, "report"]
    for name in names[1:] if names[:1] == ["growth"] else names:
        if name not in known:
            parser.error(f"no {name}; there are: {', '.join(known)}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
