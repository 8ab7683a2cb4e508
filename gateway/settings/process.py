"""The tables about the process itself: `[database]`, `[http]`, `[worker]`, `[retention]`, `[log]`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from .section import Named, Positive, Section


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
