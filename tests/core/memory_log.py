"""A log in memory, and a bridge that reads it as a member of a group whose partitions the test hands out."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from hammerwork.core.message import (
    EXACTLY_ONCE,
    Delivery,
    Guarantee,
    LogBridge,
    Message,
    Offsets,
    Position,
    Receipt,
    Want,
)


class MemoryLog:
    """Partitions by name, each a list of messages."""

    def __init__(self) -> None:
        self.partitions: dict[str, list[Message]] = defaultdict(list)

    def write(self, partition: str, *ids: str) -> None:
        """A message whose body is {"id": …} for each id, with the partition as its key."""
        for name in ids:
            body = b'{"id": "%s"}' % name.encode()
            self.partitions[partition].append(Message(body=body, key=partition))

    def delete(self, partition: str, key: str) -> None:
        """A tombstone of this key."""
        self.partitions[partition].append(Message(body=b"", key=key, tombstone=True))


class LogMember(LogBridge):
    """Reads the partitions that `assign` gives it, at most two messages of each in one pull."""

    def __init__(self, log: MemoryLog, *partitions: str, name: str = "log") -> None:
        self.name = name
        self.opened = 0
        self.pulled: list[tuple[str, int]] = []
        self.settled: list[Receipt] = []
        self._log = log
        self._assigned = list(partitions)
        self._to_take = list(partitions)
        self._next: dict[str, int] = {}
        self._offsets: Offsets | None = None

    def keep(self, offsets: Offsets) -> None:
        self._offsets = offsets

    def assign(self, *partitions: str) -> None:
        """The group gives it these partitions, and takes away all that it had."""
        self.revoke()
        self._assigned = list(partitions)
        self._to_take = list(partitions)

    def revoke(self) -> None:
        assert self._offsets is not None
        self._offsets.leave(self._assigned)
        self._next.clear()
        self._assigned = self._to_take = []

    async def open(self) -> None:
        self.opened += 1
        self._next.clear()
        self._to_take = list(self._assigned)

    async def pull(self, want: Want) -> Sequence[Delivery]:
        if self._to_take:
            await self.take()
        found: list[Delivery] = []
        for partition, start in self._next.items():
            messages = self._log.partitions[partition]
            end = min(start + 2, len(messages))
            places = [Position(partition, offset) for offset in range(start, end)]
            found += [Delivery(messages[place.offset], position=place) for place in places]
            self._next[partition] = end
            self.pulled += [(partition, place.offset) for place in places]
        if not found:
            await asyncio.sleep(min(0.01, want.wait.total_seconds()))
        return found

    async def take(self) -> None:
        """Take what it was assigned, and go to where each partition goes on."""
        assert self._offsets is not None
        taking, self._to_take = self._to_take, []
        starts = await self._offsets.take(taking)
        await self._offsets.begin({name: 0 for name, start in starts.items() if start is None})
        self._next |= {name: start or 0 for name, start in starts.items()}

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        self.settled += receipts

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if (place := delivery.position) is not None and place.partition in self._next:
                self._next[place.partition] = min(self._next[place.partition], place.offset)

    async def rest(self) -> None:
        return

    async def lag(self) -> int | None:
        return None

    async def close(self) -> None:
        return

    async def guarantee(self) -> Guarantee:
        return Guarantee(EXACTLY_ONCE, "offsets are kept with the jobs")
