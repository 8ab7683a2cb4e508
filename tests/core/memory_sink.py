"""A log sink in memory that fails on demand, and what a reader of its log would see."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID

from hammerwork.core.event import LoggedEvent
from hammerwork.core.job import Done, Outcome, Snooze
from hammerwork.core.message import Guarantee

Judge = Callable[[LoggedEvent], Outcome | None]
"""What becomes of an event; None: it is taken."""


class MemorySink:
    """Implements `core.event.LogSink`: takes what `judge` lets it, keeps the order of jobs, and raises what
    `faults` holds, one a send, after it has taken all (a destination whose answer was lost)."""

    def __init__(self, name: str = "stream", judge: Judge | None = None, *, keeps_mark: bool = False) -> None:
        self.name = name
        self.judge = judge or (lambda _: None)
        self.keeps_mark = keeps_mark
        self.mark: str | None = None
        self.log: list[LoggedEvent] = []
        self.sends: list[list[LoggedEvent]] = []
        self.faults: list[Exception] = []
        self.opened = self.closed = 0
        self.sending = asyncio.Event()
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def open(self) -> str | None:
        self.opened += 1
        return self.mark

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        self.sending.set()
        await self.flowing.wait()
        self.sends.append(list(events))
        outcomes = self._outcomes(events)
        taken = [e for e, outcome in zip(events, outcomes, strict=True) if isinstance(outcome, Done)]
        if self.keeps_mark:
            if len(taken) < len(events):
                return [Snooze(timedelta(0)) if isinstance(o, Done) else o for o in outcomes]
            self.mark = mark
        self.log += taken
        if self.faults:
            raise self.faults.pop(0)
        return outcomes

    def _outcomes(self, events: Sequence[LoggedEvent]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        waiting: set[UUID | None] = set()
        for event in events:
            outcome = self.judge(event) or Done()
            if event.job_id is not None and event.job_id in waiting:
                outcome = Snooze(timedelta(0))
            elif not isinstance(outcome, Done):
                waiting.add(event.job_id)
            outcomes.append(outcome)
        return outcomes

    async def close(self) -> None:
        self.closed += 1

    async def guarantee(self) -> Guarantee:
        return Guarantee("at-least-once", "it is in memory")

    # --- what a reader sees ---

    def ids(self) -> list[UUID]:
        """The ids of the log, repetitions too."""
        return [event.id for event in self.log]

    def sequences(self) -> dict[UUID, list[int]]:
        """By job, its sequence numbers in the order in which each was first seen."""
        found: defaultdict[UUID, list[int]] = defaultdict(list)
        for event in self.log:
            if event.job_id is not None and event.sequence not in found[event.job_id]:
                found[event.job_id].append(event.sequence)
        return found

    def assert_in_order(self) -> None:
        for job, sequences in self.sequences().items():
            assert sequences == sorted(sequences), f"job {job}: {sequences}"
