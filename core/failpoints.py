"""Named points between two durable steps, where a test may kill the process; free when none is armed."""

from __future__ import annotations

import asyncio
import os
import signal

VARIABLE = "HAMMERWORK_FAILPOINTS"
"""`point=action[@n]`, comma-separated: act at the n-th time (1) the point is reached. Actions: `kill`
(SIGKILL to this process), `raise` (ConnectionResetError), `sleep:SECONDS`."""

_armed = dict(part.split("=", 1) for part in os.environ.get(VARIABLE, "").split(",") if "=" in part)
_reached: dict[str, int] = {}


async def reach(point: str) -> None:
    """Say that the code is at `point`. Does nothing unless the environment armed it at start-up."""
    if not _armed or point not in _armed:
        return
    action, _, turn = _armed[point].partition("@")
    _reached[point] = _reached.get(point, 0) + 1
    if _reached[point] != int(turn or 1):
        return
    match action.partition(":"):
        case ("kill", _, _):
            os.kill(os.getpid(), signal.SIGKILL)
        case ("raise", _, _):
            raise ConnectionResetError(f"failpoint {point}")
        case ("sleep", _, seconds):
            await asyncio.sleep(float(seconds))
