"""A small broker in memory, with redelivery, leases, keys in order and restarts; and a bridge to it.

The broker stands on TCP, so that gateways in other processes reach it too: one line of JSON asks, one
answers.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hammerwork.plugins import (
    Bridge,
    BridgeCapabilities,
    Delivery,
    Disconnected,
    Json,
    Message,
    Misconfigured,
    Options,
    Receipt,
    SecretStr,
    Want,
)

LIMIT = 16 * 1024 * 1024
CARRIES = frozenset(
    {"id", "key", "headers", "content_type", "content_encoding", "correlation_id", "priority", "timestamp"}
)


@dataclass
class Kept:
    """A message at the broker, in its place of old whether it waits or is in somebody's hand."""

    fields: dict[str, Json]
    deliveries: int = 0
    handle: int = 0
    holder: object = None
    until: float = 0.0

    @property
    def held(self) -> bool:
        return self.holder is not None and time.monotonic() < self.until


class Spool:
    """The broker: one queue. What is in hand comes again when its lease ends or its connection closes."""

    def __init__(self, *, password: str = "", lease: float = 3600.0) -> None:
        self.password = password
        self.lease = lease
        self.port = 0
        self._messages: list[Kept] = []
        self._handles = itertools.count(1)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Spool]:
        await self.start()
        try:
            yield self
        finally:
            await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop on the spot; messages stay."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await self.cut()
            await server.wait_closed()

    async def cut(self) -> None:
        """Close every connection."""
        for writer in tuple(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._tasks)

    def publish(self, messages: Sequence[Message]) -> None:
        self._messages += [Kept(fields_of(message)) for message in messages]
        self._notify()

    @property
    def unsettled(self) -> int:
        return len(self._messages)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with suppress(ConnectionError):
                while line := await reader.readline():
                    answer = await self._answer(json.loads(line), writer)
                    writer.write(json.dumps(answer).encode() + b"\n")
                    await writer.drain()
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            self._give_back(lambda kept: kept.holder is writer)
            writer.transport.abort()

    async def _answer(self, asked: Any, holder: object) -> Json:
        match asked:
            case {"do": "hello", "password": password}:
                return password == self.password
            case {"do": "get", "count": count, "wait": wait}:
                return await self._get(count, wait, holder)
            case {"do": "done", "handles": handles}:
                self._messages = [kept for kept in self._messages if kept.handle not in handles]
                return True
            case {"do": "back", "handles": handles}:
                self._give_back(lambda kept: kept.handle in handles)
                return True
            case {"do": "extend"}:
                for kept in self._messages:
                    if kept.holder is holder and kept.held:
                        kept.until = time.monotonic() + self.lease
                return True
            case {"do": "count"}:
                return sum(not kept.held for kept in self._messages)
        raise AssertionError(asked)

    async def _get(self, count: int, wait: float, holder: object) -> Json:
        deadline = time.monotonic() + wait
        while not (ready := self._ready(count, holder)):
            left = deadline - time.monotonic()
            if left <= 0:
                return []
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(left, 0.05))  # leases end without a word
        for kept in ready:
            kept.handle, kept.holder = next(self._handles), holder
            kept.until = time.monotonic() + self.lease
            kept.deliveries += 1
        return [{**kept.fields, "handle": kept.handle, "attempt": kept.deliveries} for kept in ready]

    def _ready(self, count: int, holder: object) -> list[Kept]:
        """The next ones, in order; of a key that another one has in hand, none."""
        busy = {k.fields["key"] for k in self._messages if k.held and k.holder is not holder} - {None}
        return [k for k in self._messages if not k.held and k.fields["key"] not in busy][:count]

    def _give_back(self, which: Any) -> None:
        for kept in filter(which, self._messages):
            kept.holder = None
        self._notify()


def fields_of(message: Message) -> dict[str, Json]:
    fields = {name: getattr(message, name) for name in CARRIES}
    timestamp = None if message.timestamp is None else message.timestamp.isoformat()
    body = base64.b64encode(message.body).decode()
    return {**fields, "headers": dict(message.headers), "timestamp": timestamp, "body": body}


class SpoolOptions(Options):
    """Where the broker is."""

    port: int
    password: SecretStr
    ahead: int = 30
    """How many messages more than are wanted are received ahead."""
    tags: tuple[str, ...] = ()


@dataclass
class Link:
    """One connection: a question, then its answer."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def ask(self, **question: Json) -> Any:
        async with self.lock:
            try:
                self.writer.write(json.dumps(question).encode() + b"\n")
                await self.writer.drain()
                line = await self.reader.readline()
            except (ConnectionError, OSError) as error:
                raise Disconnected("the spool is gone") from error
        if not line:
            raise Disconnected("the spool has closed the connection")
        return json.loads(line)


class SpoolBridge(Bridge):
    """Reads a spool, as the author of a plugin would write it."""

    Options = SpoolOptions
    capabilities = BridgeCapabilities(
        order="key", stable_ids=True, counts_deliveries=True, lease="renewed", carries=CARRIES
    )

    def __init__(self, name: str, options: SpoolOptions) -> None:
        self.name = name
        self._options = options
        self._link: Link | None = None
        self._buffer: list[Delivery] = []
        self._heart: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self.close()
        self._link = await self.connect()
        self._heart = asyncio.create_task(self.beat(self._link), name=f"spool {self.name} heart")

    async def connect(self) -> Link:
        try:
            streams = await asyncio.open_connection("127.0.0.1", self._options.port, limit=LIMIT)
        except OSError as error:
            raise Disconnected(f"no spool at port {self._options.port}") from error
        link = Link(*streams)
        if not await link.ask(do="hello", password=self._options.password.get_secret_value()):
            link.writer.close()
            raise Misconfigured("the spool does not know the password", hint="set password")
        return link

    async def beat(self, link: Link) -> None:
        with suppress(Disconnected):
            while True:
                await asyncio.sleep(0.1)
                await link.ask(do="extend")

    @property
    def link(self) -> Link:
        if self._link is None:
            raise Disconnected("the bridge is not open")
        return self._link

    async def pull(self, want: Want) -> Sequence[Delivery]:
        deadline = time.monotonic() + want.wait.total_seconds()
        while not self._buffer:
            # In short questions: between them the heart asks, and a closed bridge is noticed.
            left = max(0.0, min(0.05, deadline - time.monotonic()))
            got = await self.link.ask(do="get", count=want.count + self._options.ahead, wait=left)
            self._buffer += [self.delivery(fields) for fields in got]
            if time.monotonic() >= deadline:
                break
        taken, size = 0, 0
        for delivery in self._buffer[: want.count]:
            size += len(delivery.message.body)
            if taken and size > want.size:
                break
            taken += 1
        deliveries, self._buffer = self._buffer[:taken], self._buffer[taken:]
        return deliveries

    def delivery(self, fields: Mapping[str, Any]) -> Delivery:
        carried = {name: fields[name] for name in CARRIES}
        if carried["timestamp"] is not None:
            carried["timestamp"] = datetime.fromisoformat(carried["timestamp"])
        message = Message(
            **carried,
            body=base64.b64decode(fields["body"]),
            attempt=fields["attempt"],
            coordinates={"broker": "spool"},
        )
        return Delivery(message, fields["handle"])

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        await self.link.ask(do="done", handles=[receipt.delivery.handle for receipt in receipts])

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        ahead, self._buffer = self._buffer, []
        await self.link.ask(do="back", handles=[delivery.handle for delivery in (*deliveries, *ahead)])

    async def rest(self) -> None:
        if self._buffer:
            await self.release([])

    async def lag(self) -> int | None:
        return len(self._buffer) + int(await self.link.ask(do="count"))

    async def close(self) -> None:
        link, self._link = self._link, None
        heart, self._heart = self._heart, None
        self._buffer = []
        if heart is not None:
            heart.cancel()
            await asyncio.wait([heart])
        if link is not None:
            link.writer.close()
            with suppress(ConnectionError):
                await link.writer.wait_closed()
