"""A command's talk with the database: settings, the connection, one coroutine, the end."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import structlog

from ...core.errors import Misconfigured
from ...core.postgres.database import Database
from ...core.queue import Queue
from ..embedded import default_directory, dsn_of
from ..settings import Settings, load

T = TypeVar("T")

PATIENCE = timedelta(seconds=1)
"""A person waits: an enqueue does not try for long while Postgres is away."""


@dataclass(frozen=True, slots=True)
class Session:
    """What an act of a command works with."""

    settings: Settings
    queue: Queue

    @property
    def database(self) -> Database:
        return self.queue.database


def talk(config: Path | None, act: Callable[[Session], Awaitable[T]]) -> T:
    """Read the settings, connect, do one thing, and disconnect."""
    quiet_logs()
    settings = load(config)

    async def talking() -> T:
        async with opened(settings, application_name="hammerwork-cli", size=2) as database:
            queue = Queue(database=database, patience=PATIENCE)
            try:
                return await act(Session(settings, queue))
            finally:
                await queue.close()

    return asyncio.run(talking())


@asynccontextmanager
async def opened(settings: Settings, *, application_name: str, size: int) -> AsyncIterator[Database]:
    """The settings' database; without one, the embedded Postgres, if a gateway has made it before."""
    if settings.database.url is None:
        _require_embedded(settings.database.embedded_dir or default_directory())
    async with dsn_of(settings.database) as dsn:
        database = Database(
            dsn,
            size=size,
            application_name=application_name,
            prepared_statements=settings.database.prepared_statements,
        )
        try:
            yield database
        finally:
            await database.close()


def _require_embedded(directory: Path) -> None:
    if not (directory / "data" / "PG_VERSION").exists():
        raise Misconfigured(
            "no database is configured, and no gateway has made an embedded one yet",
            hint="set HAMMERWORK_DATABASE_URL=postgresql://user:password@host:5432/name, or database.url"
            " in the file of --config",
        )


def quiet_logs() -> None:
    """Errors of ours only, and on standard error: standard output is for data. What goes wrong at a broker
    is told by the command itself, not by the broker's library."""
    logging.getLogger().addHandler(logging.NullHandler())
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
