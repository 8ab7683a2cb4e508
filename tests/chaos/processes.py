"""Child processes that a chaos test starts, arms, kills and freezes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


class Child:
    """One run of a module of this folder, its output in a file. `arguments` become its environment."""

    def __init__(self, module: str, output: Path, arguments: Mapping[str, str], failpoints: str = "") -> None:
        environment = {**os.environ, **arguments, "HAMMERWORK_FAILPOINTS": failpoints}
        with output.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"hammerwork.tests.chaos.{module}"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._output = output

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """What all the runs that share the file have printed so far."""
        return self._output.read_text(errors="replace")

    def send(self, what: signal.Signals) -> None:
        if self.alive:
            self._process.send_signal(what)

    async def ended(self, within: float) -> int:
        """Its exit code (negative: the signal that ended it), or TimeoutError with its output."""
        try:
            return await asyncio.to_thread(self._process.wait, within)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"it still runs:\n{self.output[-4000:]}") from None

    async def stop(self, within: float = 15.0) -> None:
        """Ask it to stop and see that it does so in good order."""
        self.send(signal.SIGTERM)
        code = await self.ended(within)
        assert code == 0, f"it ended with {code}:\n{self.output[-4000:]}"

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.send(signal.SIGKILL)
        await self.ended(10)

    def dispose(self) -> None:
        """End it, in whatever state it is."""
        self._process.kill()
        self._process.wait()
