"""Status: what a bridge, relay or sink is doing at this moment, for readiness, metrics and people."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

State = Literal["starting", "running", "paused", "holding", "stopped"]


@dataclass(slots=True)
class Status:
    """`paused` means: nothing is wrong, it holds back because it was told to, or there is enough to do.
    `holding`: alive, something in the world or in the settings is wrong, nothing is lost."""

    state: State = "starting"
    reason: str = ""
    since: float = field(default_factory=time.time)
    """Unix seconds of the last change of state."""
    progress_at: float = 0.0
    """Unix seconds of the last work that was done; 0 when none was yet."""

    def running(self) -> None:
        self._become("running", "")

    def paused(self, reason: str) -> None:
        self._become("paused", reason)

    def holding(self, reason: str) -> None:
        self._become("holding", reason)

    def stopped(self) -> None:
        self._become("stopped", "")

    def progressed(self) -> None:
        """Work was done, so whatever held us is over."""
        self.progress_at = time.time()
        if self.state != "running":
            self.running()

    def _become(self, state: State, reason: str) -> None:
        if state != self.state:
            self.since = time.time()
        self.state, self.reason = state, reason
