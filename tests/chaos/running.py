"""An actor that runs beside a test, and is stopped in good order at the end of a block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol


class Actor(Protocol):
    async def run(self) -> None: ...


@asynccontextmanager
async def running(actor: Actor, *, within: float = 20.0) -> AsyncIterator[None]:
    """Run it until the block ends; then `stop()` it, or cancel it where it has no `stop`.

    What it raised is raised here, at the end.
    """
    task = asyncio.create_task(actor.run(), name=type(actor).__name__)
    try:
        yield
    finally:
        stop = getattr(actor, "stop", task.cancel)
        stop()
        done, _ = await asyncio.wait([task], timeout=within)
        if not done:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise TimeoutError(f"{task.get_name()} did not stop within {within:g} s")
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
