"""Deadlines: the same time limit for many tasks at once, over one timer instead of one each."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadlines:
    """Blocks that may each take `seconds`; what takes longer is cancelled and raises TimeoutError, as with
    `asyncio.timeout`, whose timer and bookkeeping cost a tenth of a delivery.

    All are given the same time, so who began first is due first: one timer, for the oldest, is enough.
    Made inside a running event loop.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._running: dict[Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Forget the timer; nothing may run any more."""
        if self._timer is not None:
            self._timer.cancel()

    def begin(self) -> Deadline:
        """One block, for the task that asks: `with deadlines.begin() as deadline:`."""
        at = self._loop.time() + self._seconds
        deadline = Deadline(asyncio.current_task(self._loop), at, self._running)
        self._running[deadline] = None
        if self._timer is None:
            self._timer = self._loop.call_at(at, self._sweep)
        return deadline

    def _sweep(self) -> None:
        now = self._loop.time()
        for deadline in self._running:
            if deadline.at > now:
                self._timer = self._loop.call_at(deadline.at, self._sweep)
                return
            deadline.pass_by()
        self._timer = None


class Deadline:
    """One block and the moment (of the loop's clock) at which it must have ended."""

    __slots__ = ("_cancelling", "_passed", "_running", "_task", "at")

    def __init__(self, task: asyncio.Task[object] | None, at: float, running: dict[Deadline, None]) -> None:
        assert task is not None
        self.at = at
        self._task = task
        self._cancelling = task.cancelling()
        self._running = running
        self._passed = False

    def pass_by(self) -> None:
        """Cancel the task, once."""
        if not self._passed:
            self._passed = True
            self._task.cancel()

    def __enter__(self) -> Deadline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._running[self]
        # Somebody else may have cancelled the task as well: their word goes before ours.
        if self._passed and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
