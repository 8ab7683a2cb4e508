"""What is held of a queue: the messages that wait for a pull or for their settling, hidden from others for as
long as we hold them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import structlog

from ...core.errors import Disconnected
from .connection import GONE, Connection
from .options import LONGEST_VISIBILITY, MOST_A_CALL
from .payload import Pointer

log = structlog.get_logger(__name__)

LONGEST_HIDING = 900
"""Seconds that a message stays hidden at most when it was handed back again and again."""

FIRST_HIDING = 5

DELETE_TRIES = 4
DELETES_AT_ONCE = 8
"""Batches of ten that are deleted at a time from a queue without order."""


@dataclass(slots=True, kw_only=True, eq=False)
class Held:
    """One message in our hands. `handle` is the newest receipt handle, `group` that of a FIFO queue,
    `attempt` SQS's count of its deliveries; times are the event loop's."""

    id: str
    handle: str
    group: str | None
    attempt: int
    received_at: float
    hidden_at: float
    payload: Pointer | None = None


class Holding:
    """All messages in our hands, by their ids, and what becomes of them."""

    def __init__(self, connection: Connection, bridge: str, *, visibility: float, ordered: bool) -> None:
        self._connection = connection
        self._bridge = bridge
        self._visibility = visibility
        self._ordered = ordered
        self._held: dict[str, Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def again(self, message_id: str, handle: str) -> bool:
        """Whether a message that came is in our hands already: its time ran out, or SQS gave it out twice.
        Then its newest handle is the one that counts, and the copy is of no use."""
        held = self._held.get(message_id)
        if held is None:
            return False
        held.handle, held.hidden_at = handle, asyncio.get_running_loop().time()
        return True

    def hold(self, held: Held) -> None:
        self._held[held.id] = held

    def all(self) -> list[Held]:
        """In the order in which they came."""
        return list(self._held.values())

    def drop(self, entries: Iterable[Held]) -> list[Held]:
        """Those of them that are in our hands, which they are no more."""
        return [entry for entry in entries if self._held.get(entry.id) is entry and self._held.pop(entry.id)]

    # --- settle ---

    async def delete(self, entries: Sequence[Held]) -> list[Held]:
        """Delete them from the queue, those of a FIFO queue in their order; which were deleted. The others
        come again. Raises Disconnected, Misconfigured."""
        mine = self.drop(entries)
        batches = list(_tens(mine))
        deleted: list[Held] = []
        step = 1 if self._ordered else DELETES_AT_ONCE
        for start in range(0, len(batches), step):
            done = await asyncio.gather(*map(self._delete, batches[start : start + step]))
            deleted += [entry for batch in done for entry in batch]
        if late := len(entries) - len(deleted):
            log.info("sqs.not_deleted", bridge=self._bridge, deliveries=late)
        return deleted

    async def _delete(self, batch: Sequence[Held]) -> Sequence[Held]:
        """One batch; those of its entries that failed are tried again, unless their handles are too old."""
        left, deleted = list(batch), list[Held]()
        for number in range(DELETE_TRIES):
            if number:
                await asyncio.sleep(0.05 * 2**number)
            failed = await self._connection.delete([entry.handle for entry in left])
            deleted += [entry for place, entry in enumerate(left) if place not in failed]
            left = [left[place] for place, code in sorted(failed.items()) if code not in GONE]
            if not left:
                break
        return deleted

    # --- give back ---

    async def give_back(self, entries: Iterable[Held]) -> None:
        """Let others have these, groups whole and in order. What comes back often comes back later: a queue
        that counts deliveries would take it for poison while it is we who cannot store it."""
        mine = self.drop(entries)
        longest: dict[str | None, int] = {}
        for entry in mine:
            longest[entry.group] = max(longest.get(entry.group, 0), hiding(entry.attempt))
        for batch in _tens(mine):
            seconds = [longest[entry.group] if self._ordered else hiding(entry.attempt) for entry in batch]
            await self._connection.hide([entry.handle for entry in batch], seconds)

    # --- keep ---

    async def keep_hidden(self) -> None:
        """Extend, for ever, what is held for longer than a third of its time. SQS allows 12 hours in all."""
        loop = asyncio.get_running_loop()
        tick = self._visibility / 3
        while True:
            await asyncio.sleep(tick)
            now = loop.time()
            cap = now - LONGEST_VISIBILITY.total_seconds() + self._visibility
            due = [h for h in self._held.values() if h.hidden_at <= now - tick / 2 and h.received_at > cap]
            for batch in _tens(due):
                try:
                    await self._extend(batch)
                except Disconnected as error:
                    log.warning("sqs.not_extended", bridge=self._bridge, error=str(error))
                    break

    async def _extend(self, batch: Sequence[Held]) -> None:
        now = asyncio.get_running_loop().time()
        failed: Mapping[int, str] = await self._connection.hide(
            [entry.handle for entry in batch], [int(self._visibility)] * len(batch)
        )
        for place, entry in enumerate(batch):
            if place not in failed:
                entry.hidden_at = now
        if failed:
            # Too late: they come again while we hold them, and are duplicates then.
            log.info("sqs.expired", bridge=self._bridge, deliveries=len(failed))


def hiding(attempt: int) -> int:
    """Seconds for which a message that is handed back stays hidden: none the first time, then ever longer."""
    return 0 if attempt <= 1 else min(FIRST_HIDING * 2 ** min(attempt - 2, 10), LONGEST_HIDING)


def _tens(entries: Sequence[Held]) -> Iterator[list[Held]]:
    left = iter(entries)
    while batch := list(islice(left, MOST_A_CALL)):
        yield batch
