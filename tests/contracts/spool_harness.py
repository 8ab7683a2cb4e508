"""A spool as the kit wants it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hammerwork.plugins import Json, Message
from hammerwork.plugins.conformance import BridgeHarness

from ..services import free_port
from .spool import Spool

LEASE = 0.5


@dataclass(kw_only=True)
class SpoolHarness(BridgeHarness):
    """A spool of the test's own."""

    spool: Spool

    async def publish(self, messages: Sequence[Message]) -> None:
        self.spool.publish(messages)

    async def unsettled(self) -> int:
        return self.spool.unsettled

    async def restart(self) -> None:
        await self.spool.stop()
        await self.spool.start()

    async def cut(self) -> None:
        await self.spool.cut()

    async def unreachable(self) -> Mapping[str, Json]:
        return {**self.options, "port": free_port()}


@asynccontextmanager
async def spool_harness(*, patience: float = 60.0) -> AsyncIterator[SpoolHarness]:
    """A harness around a fresh spool that runs."""
    password = secrets.token_hex(8)
    async with Spool(password=password, lease=LEASE).running() as spool:
        yield SpoolHarness(
            spool=spool,
            options={"port": spool.port, "password": password, "tags": ["a", "b"]},
            secrets=[password],
            patience=patience,
            lease=LEASE,
        )
