"""The handlers of a gateway that is measured: one queue, nothing to do."""

from __future__ import annotations

from hammerwork.core.execute.handlers import Handlers
from hammerwork.core.execute.running import RunningJob

handlers = Handlers()


@handlers.queue("bench")
async def nothing(_job: RunningJob) -> None:
    pass
