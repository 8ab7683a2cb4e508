"""Cancellation: whether a CancelledError is meant for this task, or a library's call has cancelled itself."""

from __future__ import annotations

import asyncio


def asked_to_end() -> bool:
    """Whether somebody has cancelled this task. Where nobody has, a CancelledError is a fault like any other:
    a client whose connection breaks may cancel what waits for it, and a loop that took that for its own end
    would end in silence."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
