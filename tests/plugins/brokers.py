"""What the tests of the extras share: pulling, receipts, waiting, and a bridge's way into Postgres."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from hammerwork.core.errors import Disconnected
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake, IntakeLimits
from hammerwork.core.ingest.mapping import FieldMapping
from hammerwork.core.message import Bridge, Delivery, Fate, Message, Receipt, Want
from hammerwork.core.postgres.database import Database

from ..chaos.running import running

SOON = Want(wait=timedelta(milliseconds=300), linger=timedelta(milliseconds=20))
AT_ONCE = Want(wait=timedelta(0), linger=timedelta(0))


async def pull_all(bridge: Bridge, count: int, want: Want = SOON) -> list[Delivery]:
    """Exactly `count` deliveries, over as many pulls as it takes."""
    taken: list[Delivery] = []
    async with asyncio.timeout(20):
        while len(taken) < count:
            taken += await bridge.pull(want)
    assert len(taken) == count
    return taken


async def pull_one(bridge: Bridge) -> Message:
    [delivery] = await pull_all(bridge, 1)
    return delivery.message


def stored(deliveries: Sequence[Delivery]) -> list[Receipt]:
    return [Receipt(delivery, Fate.STORED) for delivery in deliveries]


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.message.body for delivery in deliveries]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Poll what only a server knows, for a minute at most."""
    for _ in range(3000):
        if await condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail("the condition did not come true within a minute")


async def disconnected(bridge: Bridge) -> Disconnected:
    """The error by which a bridge says that its broker is gone, within a few pulls."""
    async with asyncio.timeout(20):
        while True:
            try:
                await bridge.pull(SOON)
            except Disconnected as error:
                return error


def intake_of(bridge: Bridge, database: Database, **limits: Any) -> Intake:
    """The bridge's way into the queue `work`."""
    return Intake(database, bridge, Decoder(), FieldMapping(queue="work"), IntakeLimits(**limits))


async def payloads(database: Database) -> list[Any]:
    """The payloads of all jobs that there are."""
    async with database.transaction() as connection:
        rows = await connection.fetch("select payload::text from hammerwork.jobs order by id")
    return [json.loads(row["payload"]) for row in rows]


async def reasons(database: Database) -> list[str]:
    """Why messages became dead letters."""
    async with database.transaction() as connection:
        rows = await connection.fetch("select reason from hammerwork.dead_letters order by id")
    return [str(row["reason"]) for row in rows]


@asynccontextmanager
async def ingesting(bridge: Bridge, database: Database, **limits: Any) -> AsyncIterator[Intake]:
    """The bridge's messages become jobs until the block ends."""
    intake = intake_of(bridge, database, **limits)
    async with running(intake):
        yield intake
