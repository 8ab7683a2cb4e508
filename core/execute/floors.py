"""Where the last claims of a worker ended: the next ones begin there, past the dead rows of claimed jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from ..job import Priority
from ..postgres.database import Record
from .roster import Wanted

BEHIND = timedelta(milliseconds=100)
"""How far a floor lies behind the last job that was claimed: producers commit out of order all the time, and
what commits within so long of its beginning is seen at once."""

WHOLE_LOOK_EVERY = 0.25
"""Seconds after which a busy worker looks at whole queues again: a job that came back to a place before the
floor (given back, promoted late, committed late) waits that long at most."""

WHOLE_LOOK_SHARE = 20
"""A whole look may take one twentieth of the time, so it becomes rarer as it becomes dearer."""

WHOLE_LOOK_WITHIN = 5.0
"""But not rarer than this: what made it dear may have been a lock or a disk, once."""

_PRIORITIES = sorted((int(priority) for priority in Priority), reverse=True)

Columns = tuple[list[str], list[int], list[datetime | None], list[int], list[int]]


class Floors:
    """A run_at for each queue and priority before which claim.sql need not look.

    The index of available jobs keeps an entry for every job claimed since the last vacuum, and while any
    transaction in the database holds an old snapshot no vacuum removes them. A claim that begins at the head
    of its queue steps over all of them, so claims become dearer with every job (0.24 µs an entry, measured
    on Postgres 18). A floor is a hint: what lies before it is found by the next whole look.
    """

    def __init__(self) -> None:
        self._floors: dict[tuple[str, int], datetime] = {}
        self._looked = 0.0
        self._cost = 0.0

    def next_whole_look(self, *, rested: bool) -> float:
        """When to look at whole queues again (monotonic seconds): a worker that has rested may do so sooner
        than a busy one."""
        least = 0.0 if rested else WHOLE_LOOK_EVERY
        return self._looked + min(max(least, WHOLE_LOOK_SHARE * self._cost), WHOLE_LOOK_WITHIN)

    def columns(self, wanted: Wanted, *, whole: bool) -> Columns:
        """The first five parameters of claim.sql."""
        places = [(queue, priority) for queue in wanted.limits for priority in _PRIORITIES]
        return (
            [queue for queue, _ in places],
            [priority for _, priority in places],
            [None if whole else self._floors.get(place) for place in places],
            [wanted.slots(queue, priority) for queue, priority in places],
            [wanted.limits[queue] for queue, _ in places],
        )

    def claimed(self, rows: Sequence[Record], *, whole: bool, seconds: float) -> None:
        """Note where a claim ended that took so long. Its rows come in the order of the queue."""
        if whole:
            self._looked, self._cost = time.monotonic(), seconds
        last = {(row["queue"], row["priority"]): row["run_at"] for row in rows}
        self._floors.update({place: run_at - BEHIND for place, run_at in last.items()})
