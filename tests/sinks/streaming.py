"""What the tests of log sinks send: events as the log has them, and jobs that make them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hammerwork.core.event import LoggedEvent, LogSink
from hammerwork.core.identity import new_id
from hammerwork.core.job import Dead, Done, Json, Outcome

BEGAN = datetime(2026, 11, 23, 12, tzinfo=UTC)
NO_JOB = UUID(int=0)
_numbers = itertools.count(1)


def event(
    job: UUID | None = None,
    sequence: int = 1,
    *,
    type: str = "job.completed",
    queue: str | None = "orders",
    data: Mapping[str, Json] | None = None,
    source: str = "/hammerwork",
) -> LoggedEvent:
    """An event of this job (NO_JOB: of none), behind all that were made before."""
    number = next(_numbers)
    return LoggedEvent(
        log_id=number,
        xid=str(700 + number),
        id=new_id(),
        job_id=None if job == NO_JOB else job or new_id(),
        sequence=sequence,
        type=type,
        queue=queue,
        text=json.dumps({"note": "naïve ✓"} if data is None else data, ensure_ascii=False),
        at=BEGAN + timedelta(milliseconds=number),
        again=False,
        source=source,
    )


def events(jobs: int, each: int, **options: Any) -> list[LoggedEvent]:
    """So many events of so many jobs, interleaved."""
    ids = [new_id() for _ in range(jobs)]
    return [event(job, sequence, **options) for sequence in range(1, each + 1) for job in ids]


async def send_all(sink: LogSink, sent: Sequence[LoggedEvent], mark: str = "1:0:log") -> dict[UUID, Outcome]:
    """As the relay does it: again and again, first what was not taken; the last outcome of each event."""
    pending, found = list(sent), dict[UUID, Outcome]()
    for _ in range(50):
        outcomes = await sink.send(pending, mark)
        assert len(outcomes) == len(pending)
        found |= {e.id: outcome for e, outcome in zip(pending, outcomes, strict=True)}
        pending = [
            e for e, outcome in zip(pending, outcomes, strict=True) if not isinstance(outcome, Done | Dead)
        ]
        if not pending:
            return found
    raise AssertionError(f"{len(pending)} events are not taken: {found[pending[0].id]}")


def assert_in_order(seen: Iterable[tuple[UUID | str, int]]) -> None:
    """The first occurrences of each job's sequence numbers rise."""
    highest: dict[str, list[int]] = {}
    for job, sequence in seen:
        mine = highest.setdefault(str(job), [])
        if sequence not in mine:
            mine.append(sequence)
    for job, sequences in highest.items():
        assert sequences == sorted(sequences), f"job {job}: {sequences}"
