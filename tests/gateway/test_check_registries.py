"""`hammerwork check` and schema registries: whether each answers, knows us, and has what a sink writes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import encode_basic_auth

from hammerwork.clients.schemas.encoding import EVENT_SCHEMA
from hammerwork.core.queue import Queue
from hammerwork.gateway.check import Finding, check
from hammerwork.gateway.settings import load

from ..clients.schemas.registry_server import RegistryServer, Version, served
from ..services import free_port

PASSWORD = "hunter2"


@pytest.fixture
async def registry() -> AsyncIterator[RegistryServer]:
    async with served(RegistryServer()) as server:
        yield server


async def findings(dsn: str, url: str, **more: str) -> dict[str, Finding]:
    """With a bridge and a sink of that registry, whose broker is not there."""
    bridge, sink = "HAMMERWORK_BRIDGES__ORDERS__", "HAMMERWORK_SINKS__BUS__"
    environment = {
        "HAMMERWORK_DATABASE_URL": dsn,
        f"{bridge}TYPE": "kafka",
        f"{bridge}BOOTSTRAP": "127.0.0.1:1",
        f"{bridge}TOPICS": "orders",
        f"{bridge}TO_QUEUE": "orders",
        f"{bridge}DECODE__FORMAT": "avro",
        f"{bridge}DECODE__REGISTRY__URL": url,
        f"{sink}TYPE": "kafka",
        f"{sink}BOOTSTRAP": "127.0.0.1:1",
        f"{sink}TOPIC": "job-events",
        f"{sink}FORMAT": "avro",
        f"{sink}REGISTRY__URL": url,
    }
    for name, value in more.items():
        environment |= {f"{bridge}DECODE__REGISTRY__{name}": value, f"{sink}REGISTRY__{name}": value}
    report = await check(load(None, environment))
    assert PASSWORD not in report.text()
    return {finding.subject: finding for finding in report.findings}


async def test_a_registry_that_answers_is_said(queue: Queue, dsn: str, registry: RegistryServer) -> None:
    found = await findings(dsn, registry.url)
    assert found["schemas of orders"].verdict == "ok"
    assert found["schemas of orders"].summary == f"the registry at {registry.url} answers"
    assert found["sink bus"].summary.startswith("no broker of 127.0.0.1:1")
    assert registry.subjects == {}  # it registers nothing


async def test_a_registry_that_is_away_is_a_fault_of_both(queue: Queue, dsn: str) -> None:
    found = await findings(dsn, url := f"http://127.0.0.1:{free_port()}")
    for subject in ("schemas of orders", "sink bus"):
        assert found[subject].verdict == "fault"
        assert found[subject].summary.startswith(f"the schema registry at {url} is away")
        assert "Connect call failed" in found[subject].summary
        assert "ssl:" not in found[subject].summary


async def test_a_login_that_is_refused_is_a_fault_of_both(
    queue: Queue, dsn: str, registry: RegistryServer
) -> None:
    registry.login = encode_basic_auth("alice", "another", "utf-8")
    found = await findings(dsn, registry.url, USERNAME="alice", PASSWORD=PASSWORD)
    for subject in ("schemas of orders", "sink bus"):
        assert found[subject].verdict == "fault"
        assert found[subject].summary == f"the schema registry at {registry.url} refuses us (401)"
        assert "username and password" in found[subject].details[0]


async def test_a_subject_that_nobody_registered_is_a_fault_where_we_may_not(
    queue: Queue, dsn: str, registry: RegistryServer
) -> None:
    def of(**sink: str) -> dict[str, str]:
        return {f"HAMMERWORK_SINKS__BUS__{name}": value for name, value in sink.items()}

    base = of(
        TYPE="kafka", BOOTSTRAP="127.0.0.1:1", TOPIC="job-events", FORMAT="avro", REGISTRY__URL=registry.url
    )
    settings = load(None, base | of(AUTO_REGISTER="false") | {"HAMMERWORK_DATABASE_URL": dsn})
    (fault,) = [f for f in (await check(settings)).findings if f.subject == "sink bus"]
    assert fault.summary == "the schema of events is not registered under 'job-events-value'"
    assert "auto_register" in fault.details[0]
    registry.add(Version(EVENT_SCHEMA.text, "AVRO"), "job-events-value")
    (fault,) = [f for f in (await check(settings)).findings if f.subject == "sink bus"]
    assert fault.summary.startswith("no broker of 127.0.0.1:1")
