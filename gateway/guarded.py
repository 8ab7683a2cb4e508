"""GuardedBridge: a bridge that is held unless it can promise what the settings ask of it."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.errors import Misconfigured
from ..core.message import Bridge, Delivery, Guarantee, Receipt, Want

EXACTLY_ONCE = "exactly-once in effect"


class GuardedBridge:
    """Implements `core.message.Bridge` by another one; `open` first asks that one what holds.

    The broker's topology may change while we run, so it is asked at every open, and a promise that does
    not hold any more holds the bridge with the reason.
    """

    def __init__(self, bridge: Bridge) -> None:
        self.name = bridge.name
        self._bridge = bridge

    async def open(self) -> None:
        found = await self._bridge.guarantee()
        if found.level != EXACTLY_ONCE:
            raise Misconfigured(
                f"guarantee = 'exactly_once' is asked, but it is {found.level}: {found.because}",
                hint="; ".join(found.warnings) or "or set guarantee = 'at_least_once'",
            )
        await self._bridge.open()

    async def pull(self, want: Want) -> Sequence[Delivery]:
        return await self._bridge.pull(want)

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        await self._bridge.settle(receipts)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self._bridge.release(deliveries)

    async def rest(self) -> None:
        await self._bridge.rest()

    async def lag(self) -> int | None:
        return await self._bridge.lag()

    async def close(self) -> None:
        await self._bridge.close()

    async def guarantee(self) -> Guarantee:
        return await self._bridge.guarantee()
