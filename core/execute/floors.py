"""Where the last claims of a worker ended: the next ones begin there, past the dead rows of claimed jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from ..job import Priority
from ..postgres.database import Record
from .roster import Wanted

WHOLE_LOOK_EVERY = 0.25
"""Seconds after which a busy worker looks at whole queues again: a job that came back to a place before the
floor (given back, promoted late, committed late) waits that long at most."""

WHOLE_LOOK_SHARE = 20
"""A whole look may take one twentieth of the time, so it becomes rarer as it becomes dearer."""

WHOLE_LOOK_WITHIN = 5.0
"""But not rarer than this: what made it dear may have been a lock or a disk, once."""

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

    def next_whole_look(self, *, rested: bool) -> float:
        """When to look at whole queues again (monotonic seconds): a worker that has rested may do so sooner
        than a busy one."""
        least = 0.0 if rested else WHOLE_LOOK_EVERY
        return self._looked + min(max(least, WHOLE_LOOK_SHARE * self._cost), WHOLE_LOOK_WITHIN)

    def columns(self, wanted: Wanted, *, whole: bool) -> Columns:
        """The first six parameters of claim.sql."""
        places = [(queue, priority) for queue in wanted.limits for priority in _PRIORITIES]
        floors = [_HEAD if whole else self._floors.get(place, _HEAD) for place in places]
        return (
            [queue for queue, _ in places],
            [priority for _, priority in places],
            [run_at for run_at, _ in floors],
            [job_id for _, job_id in floors],
            [wanted.slots(queue, priority) for queue, priority in places],
            [wanted.limits[queue] for queue, _ in places],
        )

    def claimed(self, rows: Sequence[Record], *, whole: bool, seconds: float) -> None:
        """Note where a claim ended that took so long. Its rows come in the order of the queue."""
        if whole:
            self._looked, self._cost = time.monotonic(), seconds
        last = {(row["queue"], row["priority"]): row for row in rows}
        self._floors.update({place: (row["run_at"], row["id"]) for place, row in last.items()})
