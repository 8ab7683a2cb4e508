"""Gateway: everything is built here, in one place, then started together and stopped in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from importlib.metadata import version

import structlog
from aiohttp import web

from ..core.backoff import Backoff
from ..core.errors import HammerworkError, Misconfigured, Unavailable
from ..core.event import Sink
from ..core.execute.worker import Worker
from ..core.postgres import schema
from ..core.postgres.database import Database
from ..core.postgres.notifier import Notifier
from ..core.publish.deliver import delivery_handlers
from ..core.publish.delivery_log import DeliveryLog
from ..core.queue import Queue
from ..core.upkeep import Retention, Upkeep
from .embedded import dsn_of
from .garbage import keep_what_is_built
from .health import Health
from .http import admitted_parts, build_http, listen
from .logs import configure_logging
from .metrics import GatewayCollector, QueueSurvey, new_registry
from .parts import Outlet, Parts
from .settings import Settings

log = structlog.get_logger(__name__)

BRIDGES_WITHIN = 15.0
"""Seconds for the batches in hand to be stored and settled; what is not goes back to the broker."""

RELAYS_WITHIN = 5.0
"""Seconds for the batches in hand to be sent and noted; what is not is sent again later."""

HURRIED_WITHIN = 20.0
"""Seconds that cancelled handlers and their last outcomes get."""


class Gateway:
    """One gateway process. Any number of them may run side by side on the same database and brokers.

    Building it connects to nothing and raises Misconfigured for every setting that cannot work. `dsn`
    stands in for a database URL that the settings leave open (the embedded Postgres); `parts` were built of
    the settings before.
    """

    def __init__(self, settings: Settings, *, dsn: str | None = None, parts: Parts | None = None) -> None:
        self.settings = settings
        self.parts = parts or admitted_parts(settings)
        self.database = Database(
            _dsn(settings, dsn),
            size=settings.database.connections,
            application_name="hammerwork-gateway",
            prepared_statements=settings.database.prepared_statements,
        )
        self.queue = Queue(database=self.database)
        self.notifier = Notifier(self.database)
        retention = Retention(**dict(settings.retention))
        self.upkeep = Upkeep(self.database, retention)
        self.intakes = {name: part.intake(self.database) for name, part in self.parts.ingests.items()}
        self.relays = {name: part.relay(self.database) for name, part in self.parts.outlets.items()}
        self.one_by_one = {n: s for n, p in self.parts.outlets.items() if (s := p.one_by_one) is not None}
        self.delivery_logs = {
            name: DeliveryLog(
                self.database, name, disable_after=self.parts.outlets[name].policy.disable_after
            )
            for name in self.one_by_one
        }
        self.workers = [
            self._delivery_worker(self.parts.outlets[name], sink) for name, sink in self.one_by_one.items()
        ]
        if self.parts.handlers is not None:
            self.workers.append(self._application_worker())
        self.health = Health(
            self.database,
            notifier=self.notifier,
            intakes=self.intakes,
            required=frozenset(name for name, part in self.parts.ingests.items() if part.required),
            relays=self.relays,
        )
        self.survey = QueueSurvey(self.queue)
        self.registry = new_registry(
            GatewayCollector(
                version=version("hammerwork"),
                intakes=self.intakes,
                relays=self.relays,
                workers=self.workers,
                notifier=self.notifier,
                survey=self.survey,
            )
        )
        self.address = ""
        """http://host:port, once it listens."""
        self._http: web.AppRunner = build_http(self)
        self._started = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> None:
        """Run until `stop()`. Raises Misconfigured for a fault that is found at start, Unavailable when
        Postgres does not answer within `database.patience`; later faults hold the part they concern."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.queue.close)
            for sink in self.one_by_one.values():
                await sink.open()
                stack.push_async_callback(sink.close)
            stack.push_async_callback(self._http.cleanup)
            self.address = await listen(self._http, self.settings.http)
            log.info("listening", address=self.address)
            try:
                await self._prepare_database()
                if not self._stopping.is_set():
                    await self._run_parts()
            except BaseExceptionGroup as group:
                raise _named(group) from group
            finally:
                self.health.became("stopped", "the gateway is stopping")
        log.info("gateway stopped")

    async def started(self) -> None:
        """Wait until all parts were started; they may still be connecting."""
        await self._started.wait()

    def stop(self) -> None:
        """Stop in good order: bridges, workers (drain), relays, HTTP, pools. A second call hurries."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    # --- start ---

    async def _prepare_database(self) -> None:
        deadline = asyncio.get_running_loop().time() + self.settings.database.patience.total_seconds()
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                await self._make_schema_current()
                return
            except Unavailable as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                delay = backoff.next()
                self.health.became("starting", str(error))
                log.warning(
                    "waiting for postgres",
                    error=str(error),
                    hint="is database.url (HAMMERWORK_DATABASE_URL) right?",
                    retry_in=round(delay, 2),
                )
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), delay)

    async def _make_schema_current(self) -> None:
        if not self.settings.database.migrate:
            await schema.require_current(self.database)
            return
        for migration in await schema.migrate(self.database):
            log.info("schema migrated", version=migration.version, name=migration.name)

    async def _run_parts(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            notifier = tasks.create_task(self.notifier.run(), name="notifier")
            upkeep = tasks.create_task(self.upkeep.run(), name="upkeep")
            relays = [tasks.create_task(r.run(), name=f"relay {name}") for name, r in self.relays.items()]
            logs = [
                tasks.create_task(written.run(), name=f"delivery log {name}")
                for name, written in self.delivery_logs.items()
            ]
            workers = [
                tasks.create_task(w.run(), name=f"worker {', '.join(w.handlers)}") for w in self.workers
            ]
            intakes = [tasks.create_task(i.run(), name=f"bridge {name}") for name, i in self.intakes.items()]
            self.health.became("running")
            self._started.set()
            log.info(
                "gateway started",
                database=self.database.where,
                bridges=sorted(self.intakes),
                sinks=sorted(self.relays),
                workers=len(workers),
            )
            await self._stopping.wait()
            self.health.became("stopped", "the gateway is stopping")
            log.info("gateway stopping")
            await self._stop_bridges(intakes)
            await self._stop_workers(workers)
            await self._stop_relays(relays)
            await _cut([*relays, *logs, upkeep, notifier])

    # --- stop ---

    async def _stop_bridges(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for intake in self.intakes.values():
            intake.stop()
        await _cut(await self._ended(tasks, BRIDGES_WITHIN))

    async def _stop_workers(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for worker in self.workers:
            worker.stop()
        drain = self.settings.worker.drain.total_seconds()
        left = await self._ended(tasks, drain + HURRIED_WITHIN)
        if left:
            for worker in self.workers:
                worker.stop()
            _, pending = await asyncio.wait(left, timeout=HURRIED_WITHIN)
            await _cut(list(pending))

    async def _stop_relays(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Those that send to logs note what was taken, so that it is not sent again."""
        for relay in self.relays.values():
            relay.stop()
        await self._ended(tasks, RELAYS_WITHIN)

    async def _ended(
        self, tasks: Sequence[asyncio.Task[None]], within: float
    ) -> Sequence[asyncio.Task[None]]:
        """Wait for the tasks, until the time is up or somebody hurries; those that still run."""
        if not tasks:
            return []
        loop = asyncio.get_running_loop()
        deadline, pending = loop.time() + within, set(tasks)
        hurried = asyncio.create_task(self._hurried(), name="hurry")
        try:
            while pending and not hurried.done() and (left := deadline - loop.time()) > 0:
                done, _ = await asyncio.wait(
                    {*pending, hurried}, timeout=left, return_when=asyncio.FIRST_COMPLETED
                )
                pending -= done
        finally:
            hurried.cancel()
        return list(pending)

    async def _hurried(self) -> None:
        await self._hurry.wait()

    # --- parts ---

    def _delivery_worker(self, outlet: Outlet, sink: Sink) -> Worker:
        """A worker a sink, so that a destination that hangs delays no other."""
        return Worker(
            self.queue,
            delivery_handlers(self.delivery_logs[outlet.name], sink, outlet.policy),
            concurrency=outlet.policy.concurrency,
            lease=self.settings.worker.lease,
            drain=self.settings.worker.drain,
            notifier=self.notifier,
            upkeep=False,
        )

    def _application_worker(self) -> Worker:
        assert self.parts.handlers is not None
        settings = self.settings.worker
        if settings.processes != 1:
            log.warning(
                "the gateway runs handlers in its own process", hint="worker.processes is for `worker run`"
            )
        return Worker(
            self.queue,
            self.parts.handlers,
            concurrency=settings.concurrency,
            lease=settings.lease,
            drain=settings.drain,
            poll=settings.poll,
            notifier=self.notifier,
            upkeep=False,
        )


async def serve(settings: Settings) -> None:
    """Run a gateway until SIGTERM or SIGINT, on the embedded Postgres if no database is configured. A
    second signal hurries. Raises what `Gateway` raises."""
    # Before a Postgres is started for settings that are refused.
    parts = admitted_parts(settings)
    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(dsn_of(settings.database))
        gateway = Gateway(settings, dsn=dsn, parts=parts)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, gateway.stop)
            stack.callback(loop.remove_signal_handler, number)
        keep_what_is_built()
        await gateway.run()


def main(settings: Settings) -> int:
    """What `hammerwork run` does; 0 after a stop in good order. Raises HammerworkError for one line."""
    import uvloop

    configure_logging(settings.log.level, settings.log.format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))
    return 0


def _dsn(settings: Settings, instead: str | None) -> str:
    if instead is not None:
        return instead
    if settings.database.url is None:
        raise Misconfigured(
            "no database is configured",
            hint="set HAMMERWORK_DATABASE_URL=postgresql://user:password@host:5432/name",
        )
    return settings.database.url.get_secret_value()


async def _cut(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _named(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error of ours in a group of one, else the group."""
    if len(group.exceptions) == 1 and isinstance(inner := group.exceptions[0], BaseExceptionGroup):
        return _named(inner)
    first = group.exceptions[0]
    return first if len(group.exceptions) == 1 and isinstance(first, HammerworkError) else group
