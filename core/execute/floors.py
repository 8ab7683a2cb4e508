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

_PRIORITIES = sorted((int(priority) for priority in Priority), reverse=True)

_HEAD = (None, None)

Columns = tuple[list[str], list[int], list[datetime | None], list[UUID | None], list[int], list[int]]


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

    def columns(self, limits: Mapping[str, int], share: int, *, whole: bool) -> Columns:
        """The first six parameters of claim.sql for these queues and limits. Of jobs that are not urgent, at
        most `share` of a queue and priority are looked at."""
        wanted = [(queue, priority) for queue in limits for priority in _PRIORITIES]
        floors = [_HEAD if whole else self._floors.get(place, _HEAD) for place in wanted]
        return (
            [queue for queue, _ in wanted],
            [priority for _, priority in wanted],
            [run_at for run_at, _ in floors],
            [job_id for _, job_id in floors],
            [
                limits[queue] if priority > Priority.NORMAL else min(limits[queue], share)
                for queue, priority in wanted
            ],
            [limits[queue] for queue, _ in wanted],
        )

    def claimed(self, rows: Sequence[Record], *, whole: bool, seconds: float) -> None:
        """Note where a claim ended that took so long. Its rows come in the order of the queue."""
        if whole:
            self._looked, self._cost = time.monotonic(), seconds
        last = {(row["queue"], row["priority"]): row for row in rows}
        self._floors.update({place: (row["run_at"], row["id"]) for place, row in last.items()})
