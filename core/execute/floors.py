"""Where the last claims of a worker ended: the next ones begin there, past the dead rows of claimed jobs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from ..job import Priority
from ..postgres.database import Record

WHOLE_LOOK_EVERY = 0.25
"""Seconds after which a busy worker looks at whole queues again: a job that came back to a place before the
floor (given back, promoted late, committed late) waits that long at most."""

WHOLE_LOOK_SHARE = 20
"""A whole look may take one twentieth of the time, so it becomes rarer as it becomes dearer."""

_PRIORITIES = sorted(Priority, reverse=True)

Columns = tuple[list[str], list[int], list[datetime | None], list[UUID | None], list[int]]


class Floors:
    """A position (run_at, id) for each queue and priority, as claim.sql takes it.

    The index of available jobs keeps an entry for every job claimed since the last vacuum, and while any
    transaction in the database holds an old snapshot no vacuum removes them. A claim that begins at the head
    of its queue steps over all of them, so claims become dearer with every job (0.24 µs an entry, measured
    on Postgres 18). A floor is a hint: what lies before it is found by the next whole look.
    """

    def __init__(self) -> None:
        self._floors: dict[tuple[str, int], tuple[datetime, UUID]] = {}
        self._looked = 0.0
        self._cost = 0.0

    def whole_look_due(self, *, rested: bool) -> bool:
        """Whether to look at whole queues now. A worker that has rested may do so sooner than a busy one."""
        least = 0.0 if rested else WHOLE_LOOK_EVERY
        return time.monotonic() - self._looked >= max(least, WHOLE_LOOK_SHARE * self._cost)

    def columns(self, limits: Mapping[str, int], *, whole: bool) -> Columns:
        """The first five parameters of claim.sql for these queues and limits."""
        wanted = [
            (queue, int(priority), limit) for queue, limit in limits.items() for priority in _PRIORITIES
        ]
        floors = [None if whole else self._floors.get((queue, priority)) for queue, priority, _ in wanted]
        return (
            [queue for queue, _, _ in wanted],
            [priority for _, priority, _ in wanted],
            [None if floor is None else floor[0] for floor in floors],
            [None if floor is None else floor[1] for floor in floors],
            [limit for _, _, limit in wanted],
        )

    def claimed(self, rows: Sequence[Record], *, whole: bool, seconds: float) -> None:
        """Note where a claim ended that took so long. Its rows come in the order of the queue."""
        if whole:
            self._looked, self._cost = time.monotonic(), seconds
        last = {(row["queue"], row["priority"]): row for row in rows}
        self._floors.update({place: (row["run_at"], row["id"]) for place, row in last.items()})
