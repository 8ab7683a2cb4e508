"""The kit on webhooks: an HTTP server that fails, refuses, hangs and restarts."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from hammerwork.plugins import Json
from hammerwork.plugins.conformance import Received, SinkContract, SinkHarness
from hammerwork.sinks.webhook import WebhookSink

from ..services import free_port


@dataclass(kw_only=True)
class Endpoint(SinkHarness):
    """Takes CloudEvents, and keeps those that it has answered with 2xx."""

    port: int
    path: str
    taken: list[Received] = field(default_factory=list)
    failing: int = 0
    status: int = 202
    hanging: bool = False
    runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application()
        application.router.add_post(self.path, self.handle)
        self.runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.hanging:
            await asyncio.sleep(3600)
        if self.failing:
            self.failing -= 1
            return web.Response(status=503)
        if self.status == 202:
            self.taken.append(Received(event_id=request.headers["webhook-id"], event=json.loads(body)))
        return web.Response(status=self.status)

    async def received(self) -> Sequence[Received]:
        return self.taken

    async def fail(self, times: int) -> None:
        self.failing = times

    async def refuse(self) -> None:
        self.status = 410

    async def hang(self) -> None:
        self.hanging = True

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def unreachable(self) -> Mapping[str, Json]:
        return {**self.options, "url": f"http://127.0.0.1:{free_port()}{self.path}"}


class TestWebhook(SinkContract):
    plugin = WebhookSink
    kind = "webhook"

    @pytest.fixture
    async def harness(self) -> AsyncIterator[SinkHarness]:
        port, path, secret = free_port(), f"/{secrets.token_hex(8)}", f"whsec_{secrets.token_hex(16)}"
        harness = Endpoint(
            options={
                "url": f"http://127.0.0.1:{port}{path}",
                "secrets": [secret],
                "allow_http": True,
                "allow_networks": ["127.0.0.0/8"],
                "timeout": 1,
            },
            secrets=[secret, path],
            answers_within=3.0,
            port=port,
            path=path,
        )
        await harness.start()
        yield harness
        await harness.stop()
