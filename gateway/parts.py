"""From settings to the parts that they describe: bridges with their decoders and mappings, sinks with their
subscriptions, the application's handlers.

Nothing here connects to anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeVar

from ..clients.schemas.reading import FileReader, RegistryReader
from ..core.errors import Misconfigured, NotFound
from ..core.event import AnySink, LogSink, Sink
from ..core.execute.handlers import Handlers
from ..core.expression import Condition
from ..core.ingest.decode import Decoder, Format, SchemaReader
from ..core.ingest.flow import FlowLimits
from ..core.ingest.intake import Intake, IntakeLimits
from ..core.ingest.mapping import CallableMapping, Expressions, FieldMapping, Mapper, as_transform
from ..core.ingest.preparation import Preparation
from ..core.message import Bridge
from ..core.postgres.database import Database
from ..core.publish.deliver import DeliveryPolicy
from ..core.publish.log_relay import LogRelay
from ..core.publish.relay import FILTER_VARIABLES, Relay, Subscription
from ..core.retry import Schedule
from . import catalog
from .settings import Settings
from .settings.bridges import BridgeSettings, DecodeSettings
from .settings.process import WorkerSettings
from .settings.sinks import SinkSettings

ONE_BY_ONE = {"retry", "disable_after", "concurrency"}
"""Settings of sinks that take events one by one."""

S = TypeVar("S")
P = TypeVar("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingest:
    """One bridge and what becomes of its messages."""

    name: str
    kind: str
    bridge: Bridge
    decoder: Decoder
    mapper: Mapper
    limits: IntakeLimits
    flow: FlowLimits
    feeds: tuple[str, ...]
    required: bool

    def intake(self, database: Database) -> Intake:
        """The actor that runs it."""
        return Intake(
            database,
            self.bridge,
            self.decoder,
            self.mapper,
            self.limits,
            flow=self.flow,
            feeds=self.feeds,
            kind=self.kind,
        )

    def preparation(self) -> Preparation:
        """What its messages become, without a broker and a database."""
        return Preparation(self.name, self.decoder, self.mapper, tombstones=self.limits.tombstones)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlet:
    """One sink and what it wants. `policy` is for one that takes events one by one."""

    name: str
    kind: str
    sink: AnySink
    subscription: Subscription
    policy: DeliveryPolicy

    @property
    def one_by_one(self) -> Sink | None:
        """The sink where its events are jobs of the queue `sink.<name>`; None where it reads the log."""
        return None if isinstance(self.sink, LogSink) else self.sink

    def relay(self, database: Database) -> Relay | LogRelay:
        """The actor that hands it the events."""
        if isinstance(self.sink, LogSink):
            return LogRelay(database, self.subscription, self.sink, kind=self.kind)
        return Relay(database, self.subscription, kind=self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that the settings name and enable, by name."""

    ingests: Mapping[str, Ingest]
    outlets: Mapping[str, Outlet]
    handlers: Handlers | None


def build_parts(settings: Settings) -> Parts:
    """Raises Misconfigured that lists every fault."""
    faults: list[Misconfigured] = []
    bridges = ((name, s) for name, s in settings.bridges.items() if s.enabled)
    sinks = ((name, s) for name, s in settings.sinks.items() if s.enabled)
    ingests = _each("bridges", bridges, _ingest, faults)
    outlets = _each("sinks", sinks, _outlet, faults)
    handlers: Handlers | None = None
    try:
        handlers = load_handlers(settings.worker)
    except Misconfigured as error:
        faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        lines = "\n  ".join(f"{error} ({error.hint})" if error.hint else str(error) for error in faults)
        raise Misconfigured(f"{len(faults)} settings are wrong:\n  {lines}")
    return Parts(ingests=ingests, outlets=outlets, handlers=handlers)


@dataclass(frozen=True, slots=True)
class Replayers(Mapping[str, Preparation]):
    """By bridge, what `operate.replay` sends its dead letters through; disabled bridges too.

    Each is made when it is asked for: what is wrong with one bridge is in nobody's way who replays letters of
    another. Raises Misconfigured.
    """

    settings: Settings

    def __getitem__(self, name: str) -> Preparation:
        faults: list[Misconfigured] = []
        asked = [(name, self.settings.bridges[name])]
        for ingest in _each("bridges", asked, _ingest, faults).values():
            return ingest.preparation()
        raise faults[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.settings.bridges)

    def __len__(self) -> int:
        return len(self.settings.bridges)


def ingest_of(settings: Settings, name: str) -> Ingest:
    """The bridge of that name, enabled or not. Raises NotFound with the nearest match, and Misconfigured."""
    bridge = settings.bridges.get(name)
    if bridge is None:
        close = get_close_matches(name, settings.bridges, n=1)
        known = (
            f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(settings.bridges) or 'none'}"
        )
        raise NotFound(f"no bridge {name!r} is configured ({known})")
    return _ingest(name, bridge)


def load_handlers(settings: WorkerSettings) -> Handlers | None:
    """The application's handlers, or None when the settings name none. Raises Misconfigured."""
    if settings.handlers is None:
        return None
    try:
        found = catalog.handlers.find(settings.handlers)
    except Misconfigured as error:
        raise Misconfigured(f"worker.handlers: {error}", hint=error.hint) from error
    if not isinstance(found, Handlers):
        raise Misconfigured(
            f"worker.handlers: {settings.handlers!r} is a {type(found).__name__}",
            hint="name a hammerwork.core.execute.handlers.Handlers",
        )
    return found.only(list(settings.queues)) if settings.queues else found


def _each(
    section: str, named: Iterable[tuple[str, S]], build: Callable[[str, S], P], faults: list[Misconfigured]
) -> dict[str, P]:
    built = {}
    for name, settings in named:
        try:
            built[name] = build(name, settings)
        except Misconfigured as error:
            error.args = (f"{section}.{name}: {error}",)
            faults.append(error)
    return built


def _ingest(name: str, settings: BridgeSettings) -> Ingest:
    batch = settings.batch
    return Ingest(
        name=name,
        kind=settings.type,
        bridge=catalog.bridges.find(settings.type).build(name, settings.options),
        decoder=_decoder(settings.decode),
        mapper=_mapper(name, settings),
        limits=IntakeLimits(
            count=batch.count,
            size=batch.size,
            linger=batch.linger,
            wait=batch.wait,
            dead_letter_bytes=settings.dead_letter_bytes,
            dedupe_window=settings.dedupe_window,
            max_deliveries=settings.max_deliveries,
            tombstones=settings.tombstones,
            exactly_once=settings.guarantee == "exactly_once",
        ),
        flow=FlowLimits(**dict(settings.limits)),
        feeds=tuple(filter(None, [settings.fixed_queue(name)])),
        required=settings.required,
    )


def _decoder(settings: DecodeSettings) -> Decoder:
    schemas: SchemaReader | None = None
    format: Format = "json"
    match settings.format:
        case "json" | "avro" as written if settings.schema_file is not None:
            schemas = FileReader(settings.schema_file, written)
        case "json" | "text" | "bytes" as unwritten:
            format = unwritten
        case "avro" | "protobuf" | "json_schema" as registered:
            from ..clients.schemas.registry import Registry  # with aiohttp, which nothing else here needs

            assert settings.registry is not None
            schemas = RegistryReader(Registry(settings.registry), registered)
    return Decoder(
        format=format,
        max_bytes=settings.max_bytes,
        max_depth=settings.max_depth,
        check_content_type=settings.check_content_type,
        schemas=schemas,
    )


def _mapper(name: str, settings: BridgeSettings) -> Mapper:
    job = settings.job
    fields = FieldMapping(
        settings.fixed_queue(name),
        expressions=Expressions(**settings.map.model_dump()),
        priority_from_broker=job.priority_from_broker,
        allowed_queues=job.allowed_queues,
        max_attempts=job.max_attempts,
        timeout=job.timeout,
    )
    if settings.transform is None:
        return fields
    transform = as_transform(catalog.transforms.find(settings.transform), settings.transform)
    return CallableMapping(transform, fields, timeout=settings.transform_timeout)


def _outlet(name: str, settings: SinkSettings) -> Outlet:
    condition = None
    if settings.filter is not None:
        condition = Condition(settings.filter, variables=FILTER_VARIABLES)
    policy = DeliveryPolicy(
        retry=Schedule(delays=settings.retry),
        max_attempts=len(settings.retry) + 1,
        concurrency=settings.concurrency,
        disable_after=settings.disable_after,
    )
    sink = catalog.sinks.find(settings.type).build(name, settings.options)
    from_log = isinstance(sink, LogSink)
    if from_log and (given := sorted(settings.model_fields_set & ONE_BY_ONE)):
        raise Misconfigured(
            f"a {settings.type} sink takes no {', '.join(given)}",
            hint="it reads the event log and tries until it is through; what it refuses for ever is dead",
        )
    return Outlet(
        name=name,
        kind=settings.type,
        sink=sink,
        subscription=Subscription(
            name=name,
            types=settings.types,
            queues=settings.queues,
            condition=condition,
            source=settings.source,
            max_attempts=policy.max_attempts,
            from_log=from_log,
        ),
        policy=policy,
    )
