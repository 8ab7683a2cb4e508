"""Spent: what a peer's process used, told to whoever started it."""

from __future__ import annotations

import json
import time


class Spent:
    """Runs from its making to `stop()`."""

    def __init__(self) -> None:
        self._started, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self._seconds = time.perf_counter() - self._started
        self._cpu = time.process_time() - self._cpu

    def report(self) -> None:
        """One line of JSON on standard output: what `Peer` reads."""
        print(json.dumps({"seconds": self._seconds, "cpu": self._cpu}))
