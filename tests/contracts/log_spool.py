"""The spool as a log: partitions that are read by offset, a bridge that reads them, and some with faults."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import asyncpg

from hammerwork.plugins import (
    Bridge,
    BridgeCapabilities,
    Delivery,
    Disconnected,
    Json,
    LogBridge,
    Message,
    Offsets,
    Position,
    Receipt,
    Want,
)
from hammerwork.plugins.conformance import BridgeHarness

from ..services import free_port
from .spool import CARRIES, Link, Spool, SpoolBridge, SpoolOptions, fields_of

PARTITIONS = 3
READ = "select coalesce(sum(next_offset), 0) from hammerwork.bridge_offsets where bridge = $1"


class LogSpool(Spool):
    """The broker: messages stay; those of a key are in one partition."""

    def __init__(self, *, password: str = "") -> None:
        super().__init__(password=password)
        self.partitions: list[list[dict[str, Json]]] = [[] for _ in range(PARTITIONS)]

    def publish(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.partitions[crc32((message.key or "").encode()) % PARTITIONS].append(fields_of(message))

    async def _answer(self, asked: Any, holder: object) -> Json:
        match asked:
            case {"do": "ends"}:
                return [len(partition) for partition in self.partitions]
            case {"do": "read", "partition": partition, "offset": offset, "count": count}:
                return self.partitions[partition][offset : offset + count]
        return await super()._answer(asked, holder)


class LogSpoolBridge(LogBridge):
    """Reads all partitions of a log spool, as the author of a plugin would write it."""

    Options = SpoolOptions
    capabilities = BridgeCapabilities(kind="log", order="partition", stable_ids=True, carries=CARRIES)

    def __init__(self, name: str, options: SpoolOptions) -> None:
        self.name = name
        self.next: dict[int, int] = {}
        self._spool = SpoolBridge(name, options)
        self._offsets: Offsets | None = None
        self._link: Link | None = None

    def keep(self, offsets: Offsets) -> None:
        self._offsets = offsets

    async def open(self) -> None:
        await self.close()
        self._link = await self._spool.connect()
        assert self._offsets is not None
        known = await self._offsets.take([str(number) for number in range(PARTITIONS)])
        await self._offsets.begin({name: 0 for name, offset in known.items() if offset is None})
        self.next = {int(name): offset or 0 for name, offset in known.items()}

    @property
    def link(self) -> Link:
        if self._link is None:
            raise Disconnected("the bridge is not open")
        return self._link

    async def pull(self, want: Want) -> Sequence[Delivery]:
        deadline = time.monotonic() + want.wait.total_seconds()
        while True:
            if (taken := await self.read(want)) or time.monotonic() >= deadline:
                return taken
            await asyncio.sleep(0.01)

    async def read(self, want: Want) -> list[Delivery]:
        taken: list[Delivery] = []
        size = 0
        for number in range(PARTITIONS):
            offset, count = self.next[number], want.count - len(taken)
            for fields in await self.link.ask(do="read", partition=number, offset=offset, count=count):
                delivery = self.delivery(fields, Position(str(number), self.next[number]))
                size += len(delivery.message.body)
                if taken and size > want.size:
                    return taken
                taken.append(delivery)
                self.next[number] += 1
        return taken

    def delivery(self, fields: Mapping[str, Any], position: Position) -> Delivery:
        message = self._spool.delivery({**fields, "attempt": None, "handle": None}).message
        return Delivery(message, None, position)

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        return

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in reversed(deliveries):
            if delivery.position is not None:
                self.next[int(delivery.position.partition)] = delivery.position.offset

    async def lag(self) -> int | None:
        return int(sum(await self.link.ask(do="ends"))) - sum(self.next.values())

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.writer.close()
            with suppress(ConnectionError):
                await link.writer.wait_closed()


# --- with faults ---------------------------------------------------------------------------------


class Forward(LogSpoolBridge):
    """Begins at the end of the log, wherever it is told to go on."""

    async def open(self) -> None:
        await super().open()
        self.next = dict(enumerate(await self.link.ask(do="ends")))


class Stubborn(LogSpoolBridge):
    """Does not go back to what it has handed back."""

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        return


class Unplaced(LogSpoolBridge):
    """Counts offsets for each batch anew."""

    async def pull(self, want: Want) -> Sequence[Delivery]:
        deliveries = await super().pull(want)
        return [d._replace(position=Position("0", n)) for n, d in enumerate(deliveries)]


class Scattered(LogSpoolBridge):
    """Gives the messages of a batch in any order."""

    async def pull(self, want: Want) -> Sequence[Delivery]:
        deliveries = list(await super().pull(want))
        random.Random(1).shuffle(deliveries)
        return deliveries


# --- the harness ---------------------------------------------------------------------------------


@dataclass(kw_only=True)
class LogSpoolHarness(BridgeHarness):
    """A log of the test's own. What is owed is what Postgres' offsets have not passed."""

    spool: LogSpool
    dsn: str
    bridge: str = ""

    def attach(self, bridge: Bridge) -> None:
        self.bridge = bridge.name

    async def publish(self, messages: Sequence[Message]) -> None:
        self.spool.publish(messages)

    async def unsettled(self) -> int:
        connection = await asyncpg.connect(self.dsn)
        try:
            return sum(map(len, self.spool.partitions)) - int(await connection.fetchval(READ, self.bridge))
        finally:
            await connection.close()

    async def restart(self) -> None:
        await self.spool.stop()
        await self.spool.start()

    async def cut(self) -> None:
        await self.spool.cut()

    async def unreachable(self) -> Mapping[str, Json]:
        return {**self.options, "port": free_port()}


@asynccontextmanager
async def log_spool_harness(dsn: str, *, patience: float = 60.0) -> AsyncIterator[LogSpoolHarness]:
    """A harness around a fresh log that runs."""
    password = secrets.token_hex(8)
    spool = LogSpool(password=password)
    async with spool.running():
        yield LogSpoolHarness(
            spool=spool,
            dsn=dsn,
            options={"port": spool.port, "password": password},
            secrets=[password],
            patience=patience,
        )
