"""What a gateway costs while it has nothing to do."""

from __future__ import annotations

import asyncio
import re
import sys
from uuid import uuid4

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from .command import WITHIN, Hammerwork, ended, stopped

WATCHED = 3.0
"""Seconds."""

CPU_AT_MOST = 0.05
"""Of a core. It takes half a percent on a quiet machine; this is for what spins."""

MEMORY_AT_MOST = 120 * 1024 * 1024

HANDLERS = "from hammerwork import Handlers\nhandlers = Handlers({'orders': print, 'mail': print})\n"


@pytest.fixture
def everything(hammerwork: Hammerwork, rabbitmq_url: str) -> dict[str, str]:
    """The settings of a gateway with one of each part."""
    (hammerwork.folder / "shop.py").write_text(HANDLERS)
    return {
        "PYTHONPATH": str(hammerwork.folder),
        "HAMMERWORK_HTTP__PORT": "0",
        "HAMMERWORK_RABBITMQ_URL": rabbitmq_url,
        "HAMMERWORK_RABBITMQ_QUEUE": f"orders-{uuid4().hex[:8]}",
        "HAMMERWORK_BRIDGES__RABBITMQ__DECLARE": "create",
        "HAMMERWORK_BRIDGES__RABBITMQ__DURABLE": "false",
        "HAMMERWORK_BRIDGES__RABBITMQ__ARGUMENTS": '{"x-expires": 60000}',
        "HAMMERWORK_BRIDGES__WEB__TYPE": "http",
        "HAMMERWORK_WEBHOOK_URL": "https://example.org/hook",
        "HAMMERWORK_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "HAMMERWORK_WORKER__HANDLERS": "shop:handlers",
    }


async def test_an_idle_gateway_rests_and_is_small(hammerwork: Hammerwork, everything: dict[str, str]) -> None:
    process = await hammerwork.started("run", more=everything)
    with ended(process):
        address = await _address(process)
        async with aiohttp.ClientSession(address) as client:
            await _ready(client)
            before = await _metrics(client)
            await asyncio.sleep(WATCHED)
            after = await _metrics(client)
        await stopped(process)
    assert after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"] < WATCHED * CPU_AT_MOST
    assert after["process_resident_memory_bytes"] < MEMORY_AT_MOST


async def test_a_start_makes_no_document_of_the_api() -> None:
    looking = "import sys, hammerwork.gateway.app; print('apispec' in sys.modules)"
    python = await asyncio.create_subprocess_exec(
        sys.executable, "-c", looking, stdout=asyncio.subprocess.PIPE
    )
    assert (await python.communicate())[0].strip() == b"False"


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(WITHIN):
        while line := await process.stderr.readline():
            if found := re.search(rb"address=(\S+)", line):
                return found[1].decode()
    pytest.fail("it does not listen")


async def _ready(client: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(WITHIN):
        while True:
            async with client.get("/readyz") as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.02)


async def _metrics(client: aiohttp.ClientSession) -> dict[str, float]:
    async with client.get("/metrics") as response:
        families = text_string_to_metric_families(await response.text())
        return {sample.name: sample.value for family in families for sample in family.samples}
