"""Waves: what may be sent at the same time, so that no event of a job passes an earlier one of that job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from aiokafka.producer.message_accumulator import BatchBuilder

MOST_WAVES = 50
"""One after another in one send; what belongs behind them comes with the next one."""

Place = tuple[str, int]
"""A topic and the number of a partition."""


@dataclass(slots=True)
class Part:
    """What goes to one partition in one wave: full batches, with the places of their events in the send."""

    topic: str
    partition: int
    batches: list[tuple[BatchBuilder, list[int]]] = field(default_factory=list)


class Waves:
    """Parts by wave: a wave is sent when the one before was taken.

    An event whose job's last one goes to another partition is of a later wave than that one. Within a
    partition events keep the order in which they came, whatever their jobs.
    """

    def __init__(self) -> None:
        self._waves: list[dict[Place, Part]] = []
        self._reached: dict[Place, int] = {}
        """The wave of what went to each partition last."""
        self._last: dict[UUID, tuple[Place, int]] = {}
        """Where each job's last event went, and in which wave."""

    def __iter__(self) -> Iterator[list[Part]]:
        return (list(wave.values()) for wave in self._waves)

    def part(self, place: Place, job: UUID | None) -> Part | None:
        """Where the next event belongs. `job`: whose events may not pass one another; None: nothing is
        behind anything but its own partition. None when that is behind the last wave."""
        wave = self._reached.get(place, 0)
        if job is not None:
            if (last := self._last.get(job)) is not None and last[0] != place:
                wave = max(wave, last[1] + 1)
            self._last[job] = place, wave
        if wave == MOST_WAVES:
            return None
        self._reached[place] = wave
        if wave == len(self._waves):
            self._waves.append({})
        parts = self._waves[wave]
        if (part := parts.get(place)) is None:
            part = parts[place] = Part(*place)
        return part
