"""What it costs to have it: the command line's help, a gateway's start, and a gateway with nothing to do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import aiormq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hammerwork.tests.services import free_port

from ..arena import Arena
from ..measure import CORE, MEMORY, SECONDS, Measure
from ..processes import cpu_seconds, resident_bytes
from ..row import Bar, Row, Side

COMMAND = Path(sys.executable).with_name("hammerwork")
IDLE = 20.0
SETTLED = 3.0
"""Seconds after its start until a gateway counts as idle."""
SOON = 30.0


async def help_page(arena: Arena) -> Measure:
    async with arena.measured(1) as measure:
        process = await asyncio.create_subprocess_exec(
            COMMAND, "--help", env=_as_installed(), stdout=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0
    measure.client_cpu = None  # not of this process
    return measure


async def start(arena: Arena) -> Measure:
    """From the start of the process to the first time that /readyz says yes."""
    settings = await _settings(arena)
    async with contextlib.AsyncExitStack() as stack:
        async with arena.measured(1) as measure:
            pid = await stack.enter_async_context(_ready(settings))
        measure.client_cpu, measure.memory = cpu_seconds(pid), resident_bytes(pid)
    return measure


async def idle(arena: Arena) -> Measure:
    async with _ready(await _settings(arena)) as pid:
        await asyncio.sleep(SETTLED)
        before = cpu_seconds(pid)
        async with arena.measured(1) as measure:
            await asyncio.sleep(IDLE)
        after = cpu_seconds(pid)
        measure.client_cpu = None if before is None or after is None else after - before
        measure.memory = resident_bytes(pid)
    return measure


@contextlib.asynccontextmanager
async def _ready(settings: dict[str, str]) -> AsyncIterator[int]:
    """The pid of a gateway that is ready."""
    port = free_port()
    environment = {**_as_installed(), **settings, "HAMMERWORK_HTTP__PORT": str(port)}
    process = await asyncio.create_subprocess_exec(
        COMMAND, "run", env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(SOON), aiohttp.ClientSession() as session:
            while not await _says_yes(session, f"http://127.0.0.1:{port}/readyz"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


def _as_installed() -> dict[str, str]:
    """The environment, in which Python keeps our modules compiled as it does those of an installed package;
    told not to, it would compile the tree at every start, which takes a fifth of a second."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


async def _says_yes(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientConnectionError:
        return False


async def _settings(arena: Arena) -> dict[str, str]:
    """RabbitMQ in, a webhook signed with Ed25519 out, and handlers: nearly everything there is to load."""
    key = Ed25519PrivateKey.generate()
    secret = base64.b64encode(key.private_bytes_raw() + key.public_key().public_bytes_raw()).decode()
    connection = await aiormq.connect(arena.broker_url)
    channel = await connection.channel()
    await channel.queue_declare("bench-idle", durable=True)
    await connection.close()
    return {
        "HAMMERWORK_DATABASE_URL": arena.dsn,
        "HAMMERWORK_RABBITMQ_URL": arena.broker_url,
        "HAMMERWORK_RABBITMQ_QUEUE": "bench-idle",
        "HAMMERWORK_WEBHOOK_URL": "https://example.com/events",
        "HAMMERWORK_WEBHOOK_SECRET": f"whsk_{secret}",
        "HAMMERWORK_WORKER__HANDLERS": "hammerwork.tests.benchmarks.noop:handlers",
    }


ROWS = [
    Row(
        name="footprint",
        title="A gateway with RabbitMQ, a signed webhook and handlers",
        sides=[
            Side(name="hammerwork --help", run=help_page),
            Side(name="start to ready", run=start),
            Side(name="idle", run=idle),
        ],
        bars=[
            Bar(metric=SECONDS, side="hammerwork --help", most=0.3),
            Bar(metric=SECONDS, side="start to ready", most=1.0),
            Bar(metric=CORE, side="idle", most=0.01),
            Bar(metric=MEMORY, side="idle", most=120.0),
        ],
        columns=(SECONDS, CORE, MEMORY),
    )
]
