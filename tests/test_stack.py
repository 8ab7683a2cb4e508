"""The stack of compose.yaml without containers: its environments and commands, on the test's own servers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import aio_pika
import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from .services import free_port
from .test_compose import EXAMPLES, Compose, compose_file

COMMAND = str(Path(sys.executable).with_name("hammerwork"))


@contextmanager
def process(*command: str, environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """A service in the folder of the examples, told to stop at the end, which it must do in good order."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HAMMERWORK_")}
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, cwd=EXAMPLES, env={**inherited, **environment}, stdout=output, stderr=output
        )
    try:
        yield
        child.terminate()
        assert child.wait(30) == 0, log.read_text()
    finally:
        child.kill()
        child.wait()


async def until(holds: Callable[[], Awaitable[bool]], *, log: Path) -> None:
    deadline = time.monotonic() + 30
    while not await holds():
        if time.monotonic() > deadline:
            pytest.fail(await asyncio.to_thread(log.read_text))
        await asyncio.sleep(0.05)


@pytest.fixture
async def orders(rabbitmq_url: str) -> AsyncIterator[str]:
    """The URL of a broker that is without the stack's queue, before and after."""
    async with await aio_pika.connect(rabbitmq_url) as connection:
        channel = await connection.channel()
        await channel.queue_delete("orders")
        yield rabbitmq_url
        await channel.queue_delete("orders")


def here(compose: Compose, replaced: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The services' environments with the containers' addresses replaced by ours."""

    def moved(value: str) -> str:
        for theirs, ours in replaced.items():
            value = value.replace(theirs, ours)
        return value

    return {
        name: {key: moved(value) for key, value in service["environment"].items()}
        for name, service in compose["services"].items()
    }


async def test_an_order_that_is_published_is_worked_and_reported(
    dsn: str, orders: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    compose = compose_file()
    worker = compose["services"]["worker"]
    receiver = import_module("receiver").application(
        compose["services"]["receiver"]["environment"]["WEBHOOK_SECRET"]
    )
    port = free_port()
    printed = ""

    async def ready() -> bool:
        try:
            async with client.get(f"http://127.0.0.1:{port}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False

    async def alive() -> bool:
        check = await asyncio.create_subprocess_exec(
            sys.executable,
            *[argument.replace("/app/", f"{EXAMPLES}/") for argument in worker["healthcheck"]["test"][2:]],
            env={**os.environ, **environment["worker"]},
        )
        return await check.wait() == 0

    async def reported() -> bool:
        nonlocal printed
        printed += capsys.readouterr().out
        return "job.completed" in printed

    async with TestServer(receiver) as hook, aiohttp.ClientSession() as client:
        environment = here(
            compose,
            {
                "postgresql://hammerwork:development@postgres:5432/hammerwork": dsn,
                "amqp://hammerwork:development@rabbitmq:5672/": orders,
                "http://receiver:8000": str(hook.make_url("/")).rstrip("/"),
                "172.30.93.0/24": "127.0.0.0/8",
            },
        )
        gateway = {
            **environment["gateway"],
            "HAMMERWORK_HTTP__HOST": "127.0.0.1",
            "HAMMERWORK_HTTP__PORT": str(port),
        }
        logs = tmp_path / "gateway", tmp_path / "worker"
        with process(COMMAND, "run", environment=gateway, log=logs[0]):
            await until(ready, log=logs[0])
            with process(COMMAND, *worker["command"], environment=environment["worker"], log=logs[1]):
                await until(alive, log=logs[1])
                await publish(orders, b'{"order": 42}')
                await until(reported, log=logs[0])
    assert printed.count("job.completed") == 1


async def publish(url: str, body: bytes) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        message = aio_pika.Message(body, message_id="order-42")
        await channel.default_exchange.publish(message, routing_key="orders")
