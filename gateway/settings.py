"""Settings: everything an operator may set, by HAMMERWORK_* variables or one TOML file, checked at once.

A variable goes before the file. `http.port` is `HAMMERWORK_HTTP__PORT`, or `port` under `[http]`; lists in
variables are words between commas or JSON, tables are JSON. Durations are `250ms`, `30s`, `5m`, `2h`, `7d`,
or seconds; sizes are `64KiB`, `8MiB`, or bytes. Every secret `x` may be given as `x_file`, the path of a file
that holds it (`HAMMERWORK_HTTP__TOKEN_FILE=/run/secrets/token`); a list of secrets has one a line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    SerializeAsAny,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ..core.errors import Misconfigured
from ..core.event import AnySink, EventType
from ..core.ingest.preparation import Tombstones
from ..core.job import DEFAULT_MAX_ATTEMPTS
from ..core.message import Bridge
from ..core.publish.deliver import STANDARD_SCHEDULE
from . import catalog
from .catalog import Catalog
from .decoding import DecodeSettings
from .fitting import SECRET_NAME, Fitter, keys_of, shown
from .origins import CONFIG, DELIMITER, PREFIX, Origin, Place, Tree

NAME = re.compile(r"[a-z](?:_?[a-z0-9])*_?")
"""Bridge and sink names: they are part of variable names, so no dots, dashes or double underscores."""

OPTIONS = "options"
"""The field that holds a bridge's or sink's own options; in the file they stand beside the common ones."""

Positive = Annotated[timedelta, Field(gt=timedelta(0))]
Delay = Annotated[timedelta, Field(ge=timedelta(0))]


def _named(text: str) -> str:
    if re.fullmatch(r"[\w.]+:[\w.]+|[a-z][a-z0-9_.-]*", text) is None:
        raise ValueError("must be package.module:name, or the name that a plugin gives it")
    return text


Named = Annotated[str, AfterValidator(_named)]
"""A Python object by its place, package.module:name, or by the name that an installed plugin gives it."""


class Section(BaseModel):
    """A table of the settings: unknown keys are refused, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)


class DatabaseSettings(Section):
    """`[database]`: the Postgres that holds everything."""

    url: SecretStr | None = None
    """postgresql://user:password@host:5432/name, several hosts between commas. None: the embedded one."""
    connections: int = Field(default=10, ge=2, le=1000)
    """Connections that this process may hold, beside one for listening and one a worker."""
    prepared_statements: bool = True
    """Turn off behind a pooler in transaction mode."""
    migrate: bool = True
    """Create or upgrade the schema at start."""
    patience: timedelta = Field(default=timedelta(seconds=30), ge=timedelta(0))
    """How long a start waits for a Postgres that does not answer."""
    embedded_dir: Path | None = None
    """Where the embedded Postgres keeps its data; None: `hammerwork/postgres` under XDG_DATA_HOME."""


class HttpSettings(Section):
    """`[http]`: the server of HTTP bridges, REST API, metrics and health."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    """0 takes a free port."""
    token: SecretStr | None = None
    """What API callers send as `Authorization: Bearer …`; needed to listen beyond loopback."""
    read_token: SecretStr | None = None
    """A second token that may look and not act."""


class WorkerSettings(Section):
    """`[worker]`: run the application's handlers in the gateway; `lease` and `drain` hold for sinks too."""

    handlers: Named | None = None
    """package.module:handlers, or a plugin's name for them; None: jobs are run by `hammerwork worker run`
    elsewhere."""
    queues: tuple[str, ...] = ()
    """Only these of the handlers' queues; none named: all."""
    concurrency: int = Field(default=20, ge=1, le=10_000)
    """Jobs at once, in each process."""
    processes: int = Field(default=1, ge=0, le=1000)
    """How many `hammerwork worker run` starts; 0: one a core. A gateway runs handlers in its own process."""
    lease: timedelta = Field(default=timedelta(seconds=30), ge=timedelta(seconds=1))
    drain: timedelta = Field(default=timedelta(seconds=30), ge=timedelta(0))
    """How long running handlers may take to end when the gateway stops."""
    poll: Positive = timedelta(seconds=1)


class RetentionSettings(Section):
    """`[retention]`: how long finished things are kept."""

    history: Positive = timedelta(days=7)
    attempts: Positive = timedelta(days=30)
    events: Positive = timedelta(days=7)
    deliveries: Positive = timedelta(days=14)
    dead_letters: Positive = timedelta(days=30)


class LogSettings(Section):
    """`[log]`: one line an event, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


# --- bridges -------------------------------------------------------------------------------------


class MapSettings(Section):
    """`[bridges.NAME.map]`: CEL expressions over body, headers, key, id, …; one a field of the job."""

    queue: str | None = None
    priority: str | None = None
    run_at: str | None = None
    delay: str | None = None
    correlation_id: str | None = None
    payload: str | None = None
    filter: str | None = None
    max_attempts: str | None = None
    timeout: str | None = None


class JobSettings(Section):
    """`[bridges.NAME.job]`: what every job of this bridge gets, unless an expression says otherwise."""

    max_attempts: int = Field(default=DEFAULT_MAX_ATTEMPTS, ge=1, le=32_767)
    timeout: Positive | None = None
    priority_from_broker: bool = False
    """Take AMQP's 0 to 9 in pairs as background to critical."""
    allowed_queues: tuple[str, ...] = ()
    """Glob patterns that a job's queue must match; none: every queue but those of sinks."""


class BatchSettings(Section):
    """`[bridges.NAME.batch]`: how many messages one transaction takes."""

    count: int = Field(default=500, ge=1, le=10_000)
    size: ByteSize = Field(default=ByteSize(8 * 1024 * 1024), ge=1)
    linger: timedelta = Field(default=timedelta(milliseconds=5), ge=timedelta(0), le=timedelta(seconds=10))
    wait: timedelta = Field(default=timedelta(seconds=1), gt=timedelta(0), le=timedelta(seconds=20))


class LimitSettings(Section):
    """`[bridges.NAME.limits]`: when a bridge holds back by itself, and goes on."""

    depth: int | None = Field(default=None, ge=1)
    """Pull nothing while so many jobs wait in the queues that the bridge feeds."""
    age: Positive | None = None
    """… or while the oldest of them has been due for so long."""
    resume_at: float = Field(default=0.7, gt=0, le=1)
    """Go on below this part of `depth` and `age`."""
    rate: float | None = Field(default=None, gt=0)
    """Messages a second, at most."""
    dead_letter_share: float | None = Field(default=None, gt=0, le=1)
    """Pause the bridge, until an operator resumes it, when so large a part became dead letters …"""
    dead_letter_least: int = Field(default=50, ge=1)
    """… of at least so many messages …"""
    dead_letter_window: Positive = timedelta(minutes=1)
    """… within so long."""
    stall_after: timedelta = Field(default=timedelta(minutes=1), ge=timedelta(seconds=1))
    """Open the bridge anew when nothing moved for so long although messages wait at the broker."""


class BridgeSettings(Section):
    """`[bridges.NAME]`: what every bridge may be told; the options of its type stand beside these."""

    type: str
    enabled: bool = True
    required: bool = True
    """Whether the gateway is ready only while this bridge runs."""
    guarantee: Literal["exactly_once", "at_least_once"] | None = None
    """Hold the bridge unless at least this can be promised; None: take what there is."""
    to_queue: str | None = None
    """The queue of its jobs; None: what `map.queue` says, else the bridge's own name."""
    transform: Named | None = None
    """package.module:function, or a plugin's name for it, called with the message and its body."""
    transform_timeout: Positive = timedelta(seconds=5)
    map: MapSettings = MapSettings()
    job: JobSettings = JobSettings()
    decode: DecodeSettings = DecodeSettings()
    batch: BatchSettings = BatchSettings()
    dedupe_window: Positive = timedelta(days=14)
    """How long a message's identity is remembered."""
    max_deliveries: int | None = Field(default=None, ge=1)
    """A message that the broker counts as delivered more often becomes a dead letter."""
    dead_letter_bytes: ByteSize = Field(default=ByteSize(1024 * 1024), ge=1)
    """How much of a dead letter's body is kept; a cut one cannot be replayed."""
    tombstones: Tombstones = "skip"
    """A key without a body: nothing, `cancel` the latest job of the key, or `enqueue` a null payload."""
    limits: LimitSettings = LimitSettings()
    options: SerializeAsAny[BaseModel]

    def fixed_queue(self, name: str) -> str | None:
        """The queue of all its jobs, where no expression chooses it."""
        return self.to_queue or (name if self.map.queue is None else None)


# --- sinks ---------------------------------------------------------------------------------------

DEFAULT_EVENTS = (
    EventType.COMPLETED,
    EventType.FAILED,
    EventType.DEAD,
    EventType.CANCELLED,
    EventType.MESSAGE_DEAD_LETTERED,
    EventType.SINK_DISABLED,
)


def _known_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in EventType):
            close = get_close_matches(pattern, [str(name) for name in EventType], n=1)
            raise ValueError(
                f"{pattern!r} is no event; "
                + (f"did you mean {close[0]!r}?" if close else f"there are {', '.join(EventType)}")
            )
    return patterns


class SinkSettings(Section):
    """`[sinks.NAME]`: what every sink may be told; the options of its type stand beside these."""

    type: str
    enabled: bool = True
    events: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known_patterns)] = DEFAULT_EVENTS
    """Types or patterns such as `job.*`."""
    queues: tuple[str, ...] = ()
    """Only events of jobs in queues that match one of these globs; none: all."""
    filter: str | None = None
    """A CEL expression over the event that must be true."""
    source: str = Field(default="/hammerwork", min_length=1)
    """The `source` of its CloudEvents."""
    retry: Annotated[tuple[Delay, ...], Field(min_length=1)] = STANDARD_SCHEDULE.delays
    """The delays after failed tries; after the last one the delivery is dead. This and what follows is for
    sinks that take events one by one: those that read the log try again until they are through."""
    disable_after: Positive = timedelta(days=5)
    """A sink of which nothing was taken for so long is disabled until somebody resumes it."""
    concurrency: int = Field(default=10, ge=1, le=1000)
    """Deliveries to this sink at once, in this process."""
    options: SerializeAsAny[BaseModel]

    @property
    def types(self) -> frozenset[EventType]:
        return frozenset(t for t in EventType if any(fnmatchcase(t, pattern) for pattern in self.events))


# --- all of them ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """One setting as `hammerwork config show` prints it; secrets are masked."""

    name: str
    value: str
    origin: Origin


class Settings(BaseSettings):
    """Everything that an operator may set. `load` reads it; `Settings()` is all defaults."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    database: DatabaseSettings = DatabaseSettings()
    http: HttpSettings = HttpSettings()
    worker: WorkerSettings = WorkerSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
    bridges: dict[str, BridgeSettings] = {}
    sinks: dict[str, SinkSettings] = {}

    _origins: dict[Place, Origin] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """`load` alone reads the environment: the library's own sources stop at the first fault and
        forget where a value came from."""
        return (init_settings,)

    def sources(self) -> list[Source]:
        """Every setting with its value and origin, defaults too."""
        return [
            Source(
                ".".join(place),
                shown(value, secret=value is not None and SECRET_NAME.search(place[-1]) is not None),
                origin,
            )
            for place, value, origin in self.values()
        ]

    def values(self) -> Iterator[tuple[Place, object, Origin]]:
        """Every setting's place, value and origin. Nothing is masked but what masks itself."""
        tree = Tree(origins=self._origins)
        for place, value in _values(self, ()):
            yield place, value, tree.exact_origin(place)


S = TypeVar("S", BridgeSettings, SinkSettings)
Kinds = Catalog[Bridge] | Catalog[AnySink]


def load(config: Path | None = None, env: Mapping[str, str] | None = None) -> Settings:
    """Read the file (`config`, else the one that HAMMERWORK_CONFIG names) and the variables.

    Raises Misconfigured that lists every fault, each with what was given, what is allowed and where.
    """
    environment = os.environ if env is None else env
    tree = Tree()
    if config is None and (named := environment.get(CONFIG)):
        config = Path(named)
    if config is not None:
        tree.read_file(config)
    tree.read_variables(environment)
    settings = _fitted(tree)
    if tree.faults or settings is None:
        raise _refusal(tree.faults)
    settings._origins.update(tree.origins)
    return settings


def _refusal(faults: list[str]) -> Misconfigured:
    hint = "docs/settings.md lists every setting"
    if len(faults) == 1:
        return Misconfigured(faults[0], hint=hint)
    return Misconfigured(f"{len(faults)} settings are wrong:\n  " + "\n  ".join(faults), hint=hint)


def _fitted(tree: Tree) -> Settings | None:
    fitter = Fitter(tree)
    known = keys_of(Settings)
    unknown = {key: value for key, value in tree.values.items() if key not in known}
    fitter.fit(known, unknown, ())
    sections: dict[str, Any] = {}
    for key, value in tree.values.items():
        match key:
            case "bridges":
                sections[key] = _plugged(fitter, tree, BridgeSettings, catalog.bridges, value, (key,))
            case "sinks":
                sections[key] = _plugged(fitter, tree, SinkSettings, catalog.sinks, value, (key,))
            case _ if key in known:
                sections[key] = fitter.model(known[key], value, (key,))
    if tree.faults:
        return None
    return Settings(**sections)


def _plugged(
    fitter: Fitter,
    tree: Tree,
    model: type[S],
    kinds: Kinds,
    given: object,
    place: Place,
) -> dict[str, S]:
    """The bridges or sinks: each is the common part and the options of its type."""
    found: dict[str, S] = {}
    for name, value in (fitter.table(given, place) or {}).items():
        here = (*place, name)
        if (table := fitter.table(value, here)) is None:
            continue
        if NAME.fullmatch(name) is None or len(name) > 63:
            fitter.fault(here, "is no name for it: use a-z 0-9 _, begin with a letter")
            continue
        if (one := _plugged_one(fitter, tree, model, kinds, table, here)) is not None:
            found[name] = one
    return found


def _plugged_one(
    fitter: Fitter, tree: Tree, model: type[S], kinds: Kinds, table: dict[str, object], place: Place
) -> S | None:
    try:
        options_model = kinds.find(str(table["type"])).options
    except KeyError:
        fitter.fault(place, f"has no type: there are {', '.join(kinds.names())}")
        return None
    except Misconfigured as error:
        fitter.fault((*place, "type"), f"is wrong: {error}; {error.hint}")
        return None
    common = {key: annotation for key, annotation in keys_of(model).items() if key != OPTIONS}
    own = keys_of(options_model)
    before = len(tree.faults)
    fitted = fitter.fit({**own, **common}, table, place)
    options = fitter.validated(options_model, {k: v for k, v in fitted.items() if k not in common}, place)
    shared = {k: v for k, v in fitted.items() if k in common}
    settings = fitter.validated(model, {**shared, OPTIONS: options or Section()}, place)
    return settings if len(tree.faults) == before else None


def _values(model: BaseModel, place: Place) -> Iterator[tuple[Place, object]]:
    for key, found in type(model).model_fields.items():
        value = getattr(model, key)
        here = place if key == OPTIONS else (*place, found.alias or key)
        match value:
            case BaseModel():
                yield from _values(value, here)
            case dict() if value and all(isinstance(v, BaseModel) for v in value.values()):
                for name, member in value.items():
                    yield from _values(member, (*here, name))
            case _:
                yield here, value
