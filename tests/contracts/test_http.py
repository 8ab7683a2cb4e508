"""The kit on the HTTP bridge: its senders are its broker, they keep a message until it is answered 2xx."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from hammerwork.bridges.http import HttpBridge
from hammerwork.plugins import Bridge, Message
from hammerwork.plugins.conformance import BridgeContract, BridgeHarness

from ..services import free_port
from ..services.proxy import FaultProxy

PATH = "/in/conformance"
TAKEN = {200, 202, 422}


@dataclass(kw_only=True)
class Senders(BridgeHarness):
    """Sends each message to one gateway after the other, until one of them says that it is committed."""

    token: str
    gateway: str
    """Where the kit's gateway process listens, when there is one."""
    session: aiohttp.ClientSession
    bridges: list[HttpBridge] = field(default_factory=list)
    served: str = ""
    proxy: FaultProxy | None = None
    sending: set[asyncio.Task[None]] = field(default_factory=set)

    def attach(self, bridge: Bridge) -> None:
        assert isinstance(bridge, HttpBridge)
        self.bridges.append(bridge)

    async def publish(self, messages: Sequence[Message]) -> None:
        for message in messages:
            task = asyncio.create_task(self._send(message), name=f"send {message.id}")
            self.sending.add(task)
            task.add_done_callback(self.sending.discard)

    async def unsettled(self) -> int:
        return len(self.sending)

    async def cut(self) -> None:
        assert self.proxy is not None
        self.proxy.cut()

    async def _send(self, message: Message) -> None:
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": message.id or ""}
        headers |= {name: str(value) for name, value in message.headers.items()}
        if message.content_type is not None:
            headers["Content-Type"] = message.content_type
        if message.correlation_id is not None:
            headers["X-Correlation-Id"] = message.correlation_id
        for turn in itertools.count():
            if await self._taken(turn, message.body, headers):
                return
            await asyncio.sleep(0.02)

    async def _taken(self, turn: int, body: bytes, headers: dict[str, str]) -> bool:
        places = [*(f"{self.served}/{n}" for n in range(len(self.bridges))), self.gateway]
        try:
            place = places[turn % len(places)]
            async with self.session.post(place, data=body, headers=headers) as answer:
                assert answer.status in TAKEN | {503}, await answer.text()
                return answer.status in TAKEN
        except (aiohttp.ClientError, OSError):
            return False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Hand the request to the bridge of that number, as a gateway's router would."""
        (route, _) = self.bridges[int(request.match_info["number"])].routes()
        return await route.handler(request)

    async def stop(self) -> None:
        for task in self.sending:
            task.cancel()
        await asyncio.gather(*self.sending, return_exceptions=True)
        await self.session.close()


class TestHttp(BridgeContract):
    plugin = HttpBridge
    kind = "http"

    @pytest.fixture
    async def harness(self) -> AsyncIterator[BridgeHarness]:
        token, port = secrets.token_hex(16), free_port()
        harness = Senders(
            options={"path": PATH, "token": token, "max_body": 2 * 1024 * 1024, "wait": 1.5},
            secrets=[token],
            environment={"HAMMERWORK_HTTP__PORT": str(port)},
            token=token,
            gateway=f"http://127.0.0.1:{port}{PATH}",
            session=aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=5)
            ),
        )
        application = web.Application()
        application.router.add_post("/{number}", harness.handle)
        runner = web.AppRunner(application, auto_decompress=False, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with FaultProxy(*runner.addresses[0][:2]) as proxy:
            harness.proxy, harness.served = proxy, f"http://127.0.0.1:{proxy.port}"
            yield harness
            await harness.stop()
        await runner.cleanup()
