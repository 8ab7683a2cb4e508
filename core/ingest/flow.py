"""Flow: whether a bridge may pull now, and how much: its operator, its queues' depth and its rate say so."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from ..errors import Misconfigured
from ..postgres.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowLimits:
    """When a bridge holds back by itself; None: never.

    `depth`: so many jobs wait in the queues that it feeds. `age`: the oldest of them has been due for so
    long. It goes on when both are below `resume_at` of that, so that it does not switch to and fro. `rate`:
    messages a second. `dead_letter_share`: if, of at least `dead_letter_least` messages within
    `dead_letter_window`, so large a part became dead letters, something is wrong with all of them (a change
    of schema, say): the bridge is paused until an operator resumes it. `stall_after`: a bridge that makes no
    progress for so long although messages wait at its broker is opened anew. `look_every`: the time between
    two looks at all of this.
    """

    depth: int | None = None
    age: timedelta | None = None
    resume_at: float = 0.7
    rate: float | None = None
    dead_letter_share: float | None = None
    dead_letter_least: int = 50
    dead_letter_window: timedelta = timedelta(minutes=1)
    stall_after: timedelta = timedelta(minutes=1)
    look_every: timedelta = timedelta(seconds=1)

    def __post_init__(self) -> None:
        if not 0 < self.resume_at <= 1:
            raise Misconfigured("resume_at must be above 0 and at most 1")
        if self.rate is not None and self.rate <= 0:
            raise Misconfigured("rate must be above 0")


class Flow:
    """Asked before every pull. `queues` are those that the bridge feeds; more join as its jobs name them."""

    def __init__(self, database: Database, bridge: str, limits: FlowLimits, queues: Iterable[str]) -> None:
        self._database = database
        self._bridge = bridge
        self._limits = limits
        self._queues = set(queues)
        self._looked_at = 0.0
        self._deep = False
        self._allowance = Allowance(limits.rate) if limits.rate is not None else None
        self.reason: str | None = None
        """Why the bridge holds back; None: it does not."""

    def fed(self, queues: Iterable[str]) -> None:
        """Jobs went to these queues."""
        self._queues.update(queues)

    async def look(self) -> str | None:
        """The reason to hold back, as of at most `look_every` ago. Raises Unavailable."""
        if time.monotonic() >= self._looked_at + self._limits.look_every.total_seconds():
            self.reason = await self._look()
            self._looked_at = time.monotonic()
        return self.reason

    def look_anew(self) -> None:
        """Something has changed: the next look is a real one."""
        self._looked_at = 0.0

    def most(self, count: int) -> int:
        """How many of `count` messages may be pulled now."""
        return count if self._allowance is None else min(count, self._allowance.left())

    def took(self, count: int) -> None:
        """So many were pulled."""
        if self._allowance is not None:
            self._allowance.spend(count)

    async def _look(self) -> str | None:
        limits = self._limits
        watched = limits.depth is not None or limits.age is not None
        far = limits.depth if limits.depth is not None else 1
        queues = sorted(self._queues) if watched else []
        rows = await self._database.fetch("bridge_flow", self._bridge, queues, far if watched else 0)
        if not rows:
            return None
        (row,) = rows
        if row["paused"]:
            return f"paused: {row['reason']}" if row["reason"] else "paused"
        return self._depth(row["depth"], row["age"] or 0.0) if watched else None

    def _depth(self, depth: int, age: float) -> str | None:
        """Hysteresis: what stopped at the limits goes on below `resume_at` of them."""
        limits = self._limits
        part = limits.resume_at if self._deep else 1.0
        found = None
        if limits.depth is not None and depth >= limits.depth * part:
            found = f"{depth} jobs or more wait in its queues, {limits.depth} may"
        elif limits.age is not None and age >= limits.age.total_seconds() * part:
            found = f"the oldest job in its queues has waited for {age:.0f} s"
        self._deep = found is not None
        return found


class Allowance:
    """A token bucket that holds one second's worth: `rate` a second, and at least one."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = max(rate, 1.0)
        self._filled_at = time.monotonic()

    def left(self) -> int:
        """Whole tokens there are now."""
        now = time.monotonic()
        self._tokens = min(self._tokens + (now - self._filled_at) * self._rate, max(self._rate, 1.0))
        self._filled_at = now
        return max(int(self._tokens), 0)

    def spend(self, count: int) -> None:
        """Take so many; what a bridge brought beyond its allowance is owed."""
        self._tokens -= count


class Circuit:
    """Counts dead letters among messages, and says when there are too many."""

    def __init__(self, limits: FlowLimits) -> None:
        self._limits = limits
        self._batches: deque[tuple[float, int, int]] = deque()
        self._total = self._bad = 0

    def count(self, total: int, bad: int) -> str | None:
        """A batch came to its end; why the circuit opens, if it does."""
        limits = self._limits
        if limits.dead_letter_share is None:
            return None
        now = time.monotonic()
        self._batches.append((now, total, bad))
        self._total += total
        self._bad += bad
        while self._batches[0][0] < now - limits.dead_letter_window.total_seconds():
            _, old, old_bad = self._batches.popleft()
            self._total -= old
            self._bad -= old_bad
        if self._total < limits.dead_letter_least or self._bad < self._total * limits.dead_letter_share:
            return None
        return f"{self._bad} of the last {self._total} messages became dead letters"

    def forget(self) -> None:
        """The bridge is paused: when it goes on, it is counted anew."""
        self._batches.clear()
        self._total = self._bad = 0
