"""A small destination in memory, that fails, refuses, hangs and restarts; and a sink that speaks to it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from hammerwork.plugins import (
    AT_LEAST_ONCE,
    Dead,
    DeliveryAttempt,
    DeliveryReport,
    Disconnected,
    Done,
    Guarantee,
    Json,
    Options,
    Outcome,
    Retry,
    SecretStr,
    Sink,
    SinkCapabilities,
)
from hammerwork.plugins.conformance import Received, SinkHarness

from ..services import free_port
from .spool import LIMIT, Link

LARGEST = 100_000


@dataclass(kw_only=True)
class Shelf(SinkHarness):
    """The destination, which keeps what it has taken; it is the kit's harness at once."""

    taken: list[Received] = field(default_factory=list)
    port: int = 0
    failing: int = 0
    refusing: bool = False
    hanging: bool = False
    server: asyncio.Server | None = None
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=LIMIT)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        server, self.server = self.server, None
        assert server is not None
        server.close()
        for writer in tuple(self.writers):
            writer.transport.abort()
        for task in tuple(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.writers.add(writer)
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                while line := await reader.readline():
                    writer.write(json.dumps(await self._answer(json.loads(line))).encode() + b"\n")
                    await writer.drain()
        finally:
            self.writers.discard(writer)
            self.tasks.discard(task)
            writer.transport.abort()

    async def _answer(self, asked: Any) -> Json:
        if self.hanging:
            await asyncio.Event().wait()
        if self.failing:
            self.failing -= 1
            return "busy"
        if self.refusing or len(json.dumps(asked["event"])) > LARGEST:
            return "refused"
        self.taken.append(Received(event_id=asked["id"], event=asked["event"]))
        return "taken"

    async def received(self) -> Sequence[Received]:
        return self.taken

    async def fail(self, times: int) -> None:
        self.failing = times

    async def refuse(self) -> None:
        self.refusing = True

    async def hang(self) -> None:
        self.hanging = True

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def unreachable(self) -> Mapping[str, Json]:
        return {**self.options, "port": free_port()}


@asynccontextmanager
async def shelf(*, patience: float = 60.0, answers_within: float = 2.0) -> AsyncIterator[Shelf]:
    """A fresh one, that runs."""
    token = secrets.token_hex(8)
    made = Shelf(options={}, secrets=[token], patience=patience, answers_within=answers_within)
    await made.start()
    made.options = {"port": made.port, "token": token, "tags": ["a", "b"]}
    try:
        yield made
    finally:
        await made.stop()


class ShelfOptions(Options):
    """Where the shelf is."""

    port: int
    token: SecretStr
    tags: tuple[str, ...] = ()


class ShelfSink(Sink):
    """Puts events onto a shelf, a connection each, as the author of a plugin would write it."""

    Options = ShelfOptions
    capabilities = SinkCapabilities(refuses=True, largest=LARGEST)

    def __init__(self, name: str, options: ShelfOptions) -> None:
        self.name = name
        self._options = options
        self._tasks: set[asyncio.Task[str]] = set()

    async def open(self) -> None:
        return

    async def deliver(self, attempt: DeliveryAttempt) -> DeliveryReport:
        putting = asyncio.create_task(self.put(attempt), name=f"shelf {self.name}")
        self._tasks.add(putting)
        try:
            return DeliveryReport(outcome=self.judge(await asyncio.wait_for(putting, 0.5)))
        except (Disconnected, TimeoutError, asyncio.CancelledError):
            return DeliveryReport(outcome=Retry("the shelf does not answer"), error="away")
        finally:
            self._tasks.discard(putting)

    def judge(self, answer: str) -> Outcome:
        match answer:
            case "taken":
                return Done()
            case "refused":
                return Dead("the shelf will never take it")
            case _:
                return Retry(answer)

    async def put(self, attempt: DeliveryAttempt) -> str:
        link = await self.connect()
        try:
            return str(await link.ask(id=attempt.event_id, event=dict(attempt.cloud_event)))
        finally:
            link.writer.close()

    async def connect(self) -> Link:
        try:
            return Link(*await asyncio.open_connection("127.0.0.1", self._options.port, limit=LIMIT))
        except OSError as error:
            raise Disconnected(f"no shelf at port {self._options.port}") from error

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()

    async def guarantee(self) -> Guarantee:
        return Guarantee(AT_LEAST_ONCE, "an event is put again until the shelf has taken it")
