"""`python -m tests.benchmarks [ROW …]`: a table and benchmarks.json; exit 1 when a bar is missed."""

from __future__ import annotations

import argparse
import logging
import sys

import structlog
import uvloop

from . import record
from .arena import Servers
from .machine import machine, versions
from .rows import ROWS
from .suite import measure
from .table import table

ROUNDS = 5


async def bars(names: list[str], rounds: int) -> int:
    """Measure the rows of these names, all of them where none is named."""
    chosen = [row for row in ROWS if not names or row.name in names]
    unknown = set(names) - {row.name for row in chosen}
    if unknown:
        print(
            f"no row {', '.join(sorted(unknown))}; there are: {', '.join(r.name for r in ROWS)}",
            file=sys.stderr,
        )
        return 2
    servers = Servers()
    try:
        here, parts = machine(), await versions(servers)
        missed = []
        for row in chosen:
            outcome = await measure(servers, row, rounds)
            print(table(outcome), flush=True)
            record.write(outcome, here, parts)
            if outcome.missed:
                missed.append(row.name)
    finally:
        servers.close()
    print(f"MISS: {', '.join(missed)}" if missed else "every bar that could be measured is met")
    return 1 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    return uvloop.run(bars(arguments.rows, arguments.rounds))


if __name__ == "__main__":
    sys.exit(main())
