"""Worker processes: one from its settings to its last job, and the supervisor of several."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import structlog
import typer

from ...core.backoff import Backoff
from ...core.errors import Unavailable
from ...core.execute.handlers import Handlers
from ...core.execute.worker import Worker, WorkerPool
from ...core.postgres import schema
from ...core.postgres.database import Database
from ...core.queue import Queue
from ..garbage import keep_what_is_built
from ..lifeline import Lifeline
from ..logs import configure_logging
from ..settings import Settings
from ..settings.process import WorkerSettings
from ..supervisor import Supervisor
from .session import opened
from .target import load_target

log = structlog.get_logger(__name__)


def work(settings: Settings, name: str, wanted: WorkerSettings, given: list[str]) -> int:
    """Run what `name` says until a signal, in as many processes as wanted; the exit code. `given` are the
    names of what the command line set.

    An application that made its own worker has chosen its database and its limits itself.
    """
    configure_logging(settings.log.level, settings.log.format)
    lifeline = Lifeline.inherited()
    processes = wanted.processes or _cores()
    if processes > 1 and lifeline is None:
        # The very command line of this process: what is secret stands in the environment and in files.
        command = [sys.executable, *sys.orig_argv[1:]]
        return asyncio.run(_supervise(Supervisor(command, processes)))
    _work_here(settings, name, wanted, given, lifeline)
    return 0


async def _supervise(supervisor: Supervisor) -> int:
    def stop(number: signal.Signals) -> None:
        log.info("worker processes stop", signal=number.name)
        supervisor.stop()

    with _on_signals(stop):
        return await supervisor.run()


def _work_here(
    settings: Settings, name: str, wanted: WorkerSettings, given: list[str], lifeline: Lifeline | None
) -> None:
    import uvloop

    if lifeline is not None:
        structlog.contextvars.bind_contextvars(pid=os.getpid())
    target = load_target(name)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        match target:
            case Handlers():
                handlers = target.only(list(wanted.queues)) if wanted.queues else target
                runner.run(_work(settings, handlers, wanted, lifeline))
            case Worker() | WorkerPool():
                if given:
                    raise typer.BadParameter(
                        f"{name} is a {type(target).__name__}, which has its own --{given[0].rstrip('s')}"
                    )
                runner.run(_until_stopped(target, lifeline))


async def _work(
    settings: Settings, handlers: Handlers, wanted: WorkerSettings, lifeline: Lifeline | None
) -> None:
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
        await _until_stopped(worker, lifeline)


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


async def _until_stopped(worker: Worker | WorkerPool, lifeline: Lifeline | None) -> None:
    """Run until somebody says stop: a signal, of which a second one hurries, or the supervisor."""
    workers = worker.workers if isinstance(worker, WorkerPool) else (worker,)
    ending = _Ending(worker, supervised=lifeline is not None)
    with _on_signals(ending.signalled):
        for each in workers:
            log.info("worker started", queues=sorted(each.handlers), concurrency=each.concurrency)
        if lifeline is not None:
            drain = max(each.drain for each in workers)
            lifeline.obey(stop=ending.ordered, hurry=worker.stop, drain=drain)
        keep_what_is_built()
        await worker.run()
    log.info("worker stopped", **_ended(workers))


class _Ending:
    """Who may stop a worker. A supervised one is hurried by its supervisor alone: the signal that the
    supervisor passes on may have gone to the whole group, and must not count twice."""

    def __init__(self, worker: Worker | WorkerPool, *, supervised: bool) -> None:
        self._worker = worker
        self._supervised = supervised
        self._begun = False

    def signalled(self, number: signal.Signals) -> None:
        if not (self._supervised and self._begun):
            self._stop(signal=number.name)

    def ordered(self) -> None:
        if not self._begun:
            self._stop(by="supervisor")

    def _stop(self, **why: str) -> None:
        self._begun = True
        log.info("worker stopping", **why)
        self._worker.stop()


@contextmanager
def _on_signals(act: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Within the block, SIGTERM and SIGINT call this."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, act, number)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            with suppress(ValueError):
                loop.remove_signal_handler(number)


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ended(workers: Iterable[Worker]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for worker in workers:
        for (_, outcome), count in worker.counts.ended.items():
            totals[str(outcome)] = totals.get(str(outcome), 0) + count
    return totals
