"""Spent: what a peer's process used, told to whoever started it."""

from __future__ import annotations

import gc
import json
import time


class Spent:
    """Runs from its making to `stop()`. Garbage is collected as a gateway collects its own."""

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, *gc.get_threshold()[1:])
        self._started, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self._seconds = time.perf_counter() - self._started
        self._cpu = time.process_time() - self._cpu

    def report(self) -> None:
        """One line of JSON on standard output: what `Peer` reads."""
        print(json.dumps({"seconds": self._seconds, "cpu": self._cpu}))
