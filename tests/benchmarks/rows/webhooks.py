"""Events from durable jobs to signed webhooks, logged and settled, beside a bare client's POSTs."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import aiohttp
import structlog

from hammerwork.clients.signature import new_secret
from hammerwork.core.event import Event, EventType
from hammerwork.core.execute.worker import Worker
from hammerwork.core.identity import new_id
from hammerwork.core.job import Job, Json
from hammerwork.core.publish.deliver import DeliveryPolicy, delivery_handlers
from hammerwork.core.publish.delivery_log import DeliveryLog
from hammerwork.core.queue import Queue
from hammerwork.gateway.logs import configure_logging
from hammerwork.sinks.webhook import WebhookOptions, WebhookSink

from ..arena import Arena
from ..measure import RATE, Measure
from ..payloads import encoded, payloads
from ..receiver import receiver
from ..row import Bar, Row, Side
from ..working import settled

EVENTS = 20_000
CONCURRENCY = 50


async def deliver(arena: Arena) -> Measure:
    """A sink's own worker, as the gateway runs it: signed, each delivery kept in Postgres and logged."""
    async with receiver() as url, Queue(arena.dsn) as queue:
        options = WebhookOptions.model_validate(
            {"url": url, "secrets": [new_secret()], "allow_http": True, "allow_networks": ["127.0.0.0/8"]}
        )
        sink = WebhookSink("bench", options)
        await sink.open()
        await queue.database.fetch("register_sink", sink.name, "webhook", [str(EventType.COMPLETED)])
        await queue.enqueue_many([Job("sink.bench", event) for event in _events()])
        policy = DeliveryPolicy(concurrency=CONCURRENCY)
        deliveries = DeliveryLog(queue.database, sink.name, disable_after=policy.disable_after)
        with _logging():
            worker = Worker(queue, delivery_handlers(deliveries, sink, policy), concurrency=CONCURRENCY)
            async with asyncio.TaskGroup() as tasks:
                async with arena.measured(EVENTS) as measure:
                    logging_them = tasks.create_task(deliveries.run(), name="delivery log")
                    working = tasks.create_task(worker.run(), name="worker")
                    await settled(queue, worker, EVENTS)
                worker.stop()
                await working
                logging_them.cancel()
        await sink.close()
    return measure


async def bare_posts(arena: Arena) -> Measure:
    """One aiohttp session, 50 tasks, the same bodies made beforehand, and no signature."""
    bodies = [encoded(event).encode() for event in _events()]
    headers = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    latencies = []

    async def post(session: aiohttp.ClientSession, url: str, share: list[bytes]) -> None:
        for body in share:
            started = time.perf_counter()
            async with session.post(url, data=body, headers=headers) as response:
                await response.read()
            latencies.append(time.perf_counter() - started)

    async with (
        receiver() as url,
        aiohttp.ClientSession(connector=connector) as session,
        arena.measured(EVENTS) as measure,
    ):
        await asyncio.gather(*(post(session, url, bodies[n::CONCURRENCY]) for n in range(CONCURRENCY)))
    measure.took(latencies)
    return measure


def _events() -> list[dict[str, Json]]:
    now = datetime.now(UTC)
    return [
        Event(
            id=new_id(),
            type=EventType.COMPLETED,
            job_id=new_id(),
            sequence=3,
            queue="bench",
            at=now,
            data=data,
        ).cloud_event("/bench")
        for data in payloads(EVENTS)
    ]


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """A line a delivery, rendered as the gateway does, and written to nowhere."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    with contextlib.redirect_stderr(io.StringIO()):
        configure_logging("info", "json")
    try:
        yield
    finally:
        root.handlers, root.level = handlers, level
        structlog.configure(**before)


ROWS = [
    Row(
        name="webhooks",
        title="Webhooks, 50 at once, to a receiver on this machine",
        sides=[Side(name="aiohttp", run=bare_posts), Side(name="hammerwork", run=deliver)],
        bars=[Bar(metric=RATE, beside="aiohttp", least=0.7)],
    )
]
