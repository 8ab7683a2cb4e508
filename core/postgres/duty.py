"""A duty: background work that one process does at a time, held by a lease row judged by the database."""

from __future__ import annotations

import time
from datetime import timedelta
from uuid import UUID, uuid4

from ..errors import HammerworkError
from .database import Database


class Duty:
    """A name that at most one holder has at a time, as long as it keeps asking.

    Not a lock: after a pause the old holder may act once more, so what is done under a duty must be
    harmless when two do it. It only saves work.
    """

    def __init__(self, database: Database, name: str, *, hold: timedelta = timedelta(seconds=10)) -> None:
        self._database = database
        self._name = name
        self._hold = hold
        self._holder: UUID = uuid4()
        self._ask_at = 0.0

    async def ours(self) -> bool:
        """Take it, or prolong it when a third of `hold` has passed; whether it is ours."""
        now = time.monotonic()
        if now < self._ask_at:
            return True
        held = bool(await self._database.fetch("hold_duty", self._name, self._holder, self._hold))
        self._ask_at = now + self._hold.total_seconds() / 3 if held else 0.0
        return held

    async def leave(self) -> None:
        """Let another holder take over at once. Best effort."""
        self._ask_at = 0.0
        try:
            await self._database.fetch("leave_duty", self._name, self._holder)
        except HammerworkError:
            return
