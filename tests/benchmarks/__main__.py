"""`python -m tests.benchmarks [ROW …]`: a table and benchmarks.json; exit 1 when a bar is missed."""

from __future__ import annotations

import sys
from pathlib import Path

import uvloop

from hammerwork.core.queue import Queue

from ..services import ServiceMissing
from ..services.postgres import PostgresService, find_postgres
from ..services.rabbitmq import find_rabbitmq
from . import postgres_rows, rabbitmq_rows
from .measure import Measure, Outcome, Round, Row, write_json

ROUNDS = 3


async def main(names: list[str]) -> int:
    postgres = find_postgres()
    try:
        rows = postgres_rows.ROWS
        try:
            broker = find_rabbitmq()
        except ServiceMissing as missing:
            print(f"without RabbitMQ rows: {missing}", file=sys.stderr)
            return await _run(postgres, rows, names)
        try:
            return await _run(postgres, [*rows, *rabbitmq_rows.rows(broker.url)], names)
        finally:
            broker.close()
    finally:
        postgres.close()


async def _run(postgres: PostgresService, rows: list[Row], names: list[str]) -> int:
    outcomes = []
    for row in rows:
        if names and row.name not in names:
            continue
        outcome = Outcome(row=row)
        for _ in range(ROUNDS):
            outcome.limit.append(await _round(postgres, row.limit))
            outcome.ours.append(await _round(postgres, row.ours))
        outcomes.append(outcome)
        print(outcome.line(), flush=True)
    if not outcomes:
        print(f"no such row; there are: {', '.join(row.name for row in rows)}", file=sys.stderr)
        return 2
    write_json(outcomes, Path("benchmarks.json"))
    return 1 if any(outcome.missed for outcome in outcomes) else 0


async def _round(postgres: PostgresService, run: Round) -> Measure:
    dsn = await postgres.create_database()
    async with Queue(dsn) as queue:
        await queue.migrate()
    try:
        return await run(dsn)
    finally:
        await postgres.drop_database(dsn)


if __name__ == "__main__":
    sys.exit(uvloop.run(main(sys.argv[1:])))
