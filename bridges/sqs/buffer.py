"""Buffer: deliveries that were received and are not pulled yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from ...core.message import Delivery


class Buffer:
    """In their order, from several writers to one reader."""

    def __init__(self) -> None:
        self._waiting: deque[Delivery] = deque()
        self._changed = asyncio.Event()
        self.size = 0
        """Bytes of their bodies."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, deliveries: Sequence[Delivery]) -> None:
        self._waiting.extend(deliveries)
        self.size += sum(len(delivery.message.body) for delivery in deliveries)
        self._changed.set()

    def wake(self) -> None:
        """Whoever waits shall look again."""
        self._changed.set()

    async def wait(self, count: int, size: int, seconds: float) -> None:
        """Until there are `count` or `size` bytes, the time is over, or somebody calls `wake`."""
        try:
            async with asyncio.timeout(seconds):
                while len(self._waiting) < count and self.size < size:
                    before = len(self._waiting)
                    self._changed.clear()
                    await self._changed.wait()
                    if len(self._waiting) == before:
                        return
        except TimeoutError:
            pass

    def take(self, count: int, size: int) -> list[Delivery]:
        """At most `count`, of about `size` bytes; one at least where there is one."""
        taken: list[Delivery] = []
        weight = 0
        while self._waiting and len(taken) < count:
            length = len(self._waiting[0].message.body)
            if taken and weight + length > size:
                break
            weight += length
            taken.append(self._waiting.popleft())
        self.size -= weight
        return taken
