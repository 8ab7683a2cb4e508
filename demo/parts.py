"""The demo's own parts: a publisher with duplicates and poison, a webhook receiver, child processes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

POISON = [
    b"",
    b"not json",
    b'{"order": NaN}',
    b'{"order": 1, "order": 2}',
    b"\xff\xfe",
    b'"\\u0000"',
    b"[" * 5000,
]


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message to publish: its identity at the broker and its bytes."""

    id: str
    body: bytes

    @property
    def number(self) -> int:
        """The one in its id."""
        return int(self.id.rpartition("-")[2])


def parcels(total: int, duplicates: int, poison: int, *, seed: int = 7) -> list[Parcel]:
    """`total` messages: orders, some of them twice, and some that are no JSON at all, in mixed order."""
    dice = random.Random(seed)
    orders = [
        Parcel(f"order-{n}", json.dumps({"order": n, "item": f"item {n % 17}"}).encode())
        for n in range(total - duplicates - poison)
    ]
    again = dice.sample(orders, duplicates)
    bad = [Parcel(f"poison-{n}", dice.choice(POISON)) for n in range(poison)]
    mixed = [*orders, *again, *bad]
    dice.shuffle(mixed)
    return mixed


@dataclass(slots=True)
class Receiver:
    """A webhook endpoint that checks signatures and keeps the ids it has seen."""

    secret: str
    port: int = 0
    seen: set[str] = field(default_factory=set)
    calls: int = 0
    forged: int = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Receiver]:
        app = web.Application()
        app.router.add_post("/events", self._receive)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        self.calls += 1
        try:
            event = Webhook(self.secret).verify(await request.read(), dict(request.headers))
        except WebhookVerificationError:
            self.forged += 1
            return web.Response(status=401)
        self.seen.add(event["data"]["job_id"])
        return web.Response(status=204)


class Child:
    """A process of ours, started from the command line as a user would, its output in a log file."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self._command = [str(Path(sys.executable).with_name("hammerwork")), *command]
        self._log = folder / f"{name}.log"
        self._environment = os.environ | environment
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdout=log,
                stderr=log,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
            )

    async def kill(self) -> None:
        """SIGKILL: no goodbye."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not go."""
        await self._end(signal.SIGTERM)

    async def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(by)
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()

    def complaint(self) -> str | None:
        """Why it ended by itself: the last lines of its log; None while it runs."""
        if self._process is None or self._process.returncode is None:
            return None
        lines = self._log.read_text(errors="replace").splitlines()[-15:]
        return f"{self.name} ended with {self._process.returncode}:\n  " + "\n  ".join(lines)


async def publish_amqp(url: str, queue: str, messages: Sequence[Parcel], rate: int) -> None:
    """Publish with confirms, about `rate` a second."""
    import aio_pika

    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for start in range(0, len(messages), rate // 10):
            chunk = messages[start : start + rate // 10]
            await asyncio.gather(
                *(
                    channel.default_exchange.publish(
                        aio_pika.Message(
                            parcel.body,
                            message_id=parcel.id,
                            content_type="application/json",
                            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                        ),
                        routing_key=queue,
                    )
                    for parcel in chunk
                )
            )
            await asyncio.sleep(0.1)


async def declare_amqp(url: str, queue: str) -> None:
    """The queue that a company would have already."""
    import aio_pika

    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(queue, durable=True)


async def publish_http(url: str, token: str, messages: Sequence[Parcel], rate: int) -> None:
    """POST each message until it is answered for good; a cut connection or 503 means: send it again."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for start in range(0, len(messages), rate // 10):
            await asyncio.gather(
                *(_post(session, url, parcel) for parcel in messages[start : start + rate // 10])
            )
            await asyncio.sleep(0.1)


async def _post(session: aiohttp.ClientSession, url: str, parcel: Parcel) -> None:
    while True:
        with suppress(aiohttp.ClientError, TimeoutError):
            timeout = aiohttp.ClientTimeout(total=10)
            async with session.post(
                url, data=parcel.body, headers={"Idempotency-Key": parcel.id}, timeout=timeout
            ) as answer:
                if answer.status < 300 or answer.status == 422:
                    return
        await asyncio.sleep(0.2)
