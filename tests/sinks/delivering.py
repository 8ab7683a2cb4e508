"""What the tests of webhooks send, and how: one event, through one sink."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiohttp
from aiohttp.abc import AbstractResolver

from hammerwork.core.event import DeliveryAttempt, DeliveryReport, Event, EventType
from hammerwork.sinks.webhook import WebhookOptions, WebhookSink

EVENT = Event(
    id=UUID("019a0000-0000-7000-8000-000000000001"),
    type=EventType.COMPLETED,
    job_id=UUID("019a0000-0000-7000-8000-000000000002"),
    sequence=3,
    queue="billing",
    at=datetime(2026, 11, 23, 12, tzinfo=UTC),
    data={"note": "naïve ✓"},
)
EVENT_ID = str(EVENT.id)

Settings = dict[str, Any]


def attempt(number: int = 1, source: str = "/hammerwork") -> DeliveryAttempt:
    """The given try to deliver EVENT."""
    return DeliveryAttempt(event_id=EVENT_ID, cloud_event=EVENT.cloud_event(source), attempt=number)


@asynccontextmanager
async def sink(
    url: str, settings: Settings | None = None, *, resolver: AbstractResolver | None = None
) -> AsyncIterator[WebhookSink]:
    """An open sink that may reach loopback over http, with short timeouts; `settings` go before those."""
    defaults: Settings = {
        "allow_http": True,
        "allow_networks": ["127.0.0.0/8"],
        "timeout": 2,
        "connect_timeout": 1,
    }
    options = WebhookOptions.model_validate({"url": url, **defaults, **(settings or {})})
    opened = WebhookSink("hooks", options, resolver=resolver)
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()


def connections_of(opened: WebhookSink) -> aiohttp.TCPConnector:
    """The pool of an open sink."""
    assert opened._endpoint is not None
    return opened._endpoint.connections


async def deliver(
    url: str, settings: Settings | None = None, *, resolver: AbstractResolver | None = None
) -> DeliveryReport:
    """One delivery of EVENT through a sink of its own."""
    async with sink(url, settings, resolver=resolver) as opened:
        return await opened.deliver(attempt())
