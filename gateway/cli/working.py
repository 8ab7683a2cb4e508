"""A worker process: from its settings to its last job."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable
from contextlib import suppress

import structlog
import typer

from ...core.backoff import Backoff
from ...core.errors import Unavailable
from ...core.execute.handlers import Handlers
from ...core.execute.worker import Worker, WorkerPool
from ...core.postgres import schema
from ...core.postgres.database import Database
from ...core.queue import Queue
from ..settings import Settings, WorkerSettings
from ..telemetry import configure_logging
from .session import opened
from .target import load_target

log = structlog.get_logger(__name__)


def work(settings: Settings, name: str, wanted: WorkerSettings, given: list[str]) -> None:
    """Run what `name` says until a signal. `given` are the names of what the command line set.

    An application that made its own worker has chosen its database and its limits itself.
    """
    import uvloop

    configure_logging(settings.log.level, settings.log.format)
    target = load_target(name)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        match target:
            case Handlers():
                handlers = target.only(list(wanted.queues)) if wanted.queues else target
                runner.run(_work(settings, handlers, wanted))
            case Worker() | WorkerPool():
                if given:
                    raise typer.BadParameter(
                        f"{name} is a {type(target).__name__}, which has its own --{given[0].rstrip('s')}"
                    )
                runner.run(_until_stopped(target))


async def _work(settings: Settings, handlers: Handlers, wanted: WorkerSettings) -> None:
    size = settings.database.connections
    async with opened(settings, application_name="hammerwork-worker", size=size) as database:
        worker = Worker(
            Queue(database=database),
            handlers,
            concurrency=wanted.concurrency,
            lease=wanted.lease,
            drain=wanted.drain,
            poll=wanted.poll,
        )
        await _schema_current(database, settings.database.patience.total_seconds())
        await _until_stopped(worker)


async def _schema_current(database: Database, patience: float) -> None:
    """Wait for a Postgres that does not answer yet; raises what `require_current` does, and Unavailable."""
    loop = asyncio.get_running_loop()
    deadline, backoff = loop.time() + patience, Backoff()
    while True:
        try:
            await schema.require_current(database)
            return
        except Unavailable as error:
            if loop.time() > deadline:
                raise
            delay = backoff.next()
            log.warning("waiting for postgres", error=str(error), retry_in=round(delay, 2))
            await asyncio.sleep(delay)


async def _until_stopped(worker: Worker | WorkerPool) -> None:
    """Run; the first signal stops the worker, a second one hurries it."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, worker, number)
    workers = worker.workers if isinstance(worker, WorkerPool) else (worker,)
    try:
        for each in workers:
            log.info("worker started", queues=sorted(each.handlers), concurrency=each.concurrency)
        await worker.run()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            with suppress(ValueError):
                loop.remove_signal_handler(number)
    log.info("worker stopped", **_ended(workers))


def _stop(worker: Worker | WorkerPool, number: signal.Signals) -> None:
    log.info("worker stopping", signal=number.name)
    worker.stop()


def _ended(workers: Iterable[Worker]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for worker in workers:
        for (_, outcome), count in worker.counts.ended.items():
            totals[str(outcome)] = totals.get(str(outcome), 0) + count
    return totals
