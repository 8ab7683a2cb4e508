"""BrokerService: a small broker of one process that tests may fill, kill and start again on its data."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from . import (
    NotOurs,
    ServiceMissing,
    StartFailed,
    docker_answers,
    free_port,
    private_directory,
    process_owner,
    wait_until,
)
from .container import Container

USER, PASSWORD = "tester", "right-4f1c09e2"
"""An account that every one of these brokers knows, beside the open door that the tests use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a broker is found and started.

    `configure` writes what it needs into a directory and answers the command that runs it in the foreground
    on 127.0.0.1 and that port; `image` and `script` do the same in Docker.
    """

    name: str
    variable: str
    scheme: str
    program: Path
    package: str
    owner: str
    configure: Callable[[Path, int], Sequence[str]]
    greeting: bytes
    """What a client says so that the server answers; empty where the server speaks first."""
    answer: bytes
    """The byte with which a server that is ready answers."""
    image: str
    script: str
    port: int
    probe: Sequence[str]


class Engine(Protocol):
    """How a server that is ours is started and stopped."""

    def start(self) -> None: ...

    def stop(self, *, immediate: bool = False) -> None: ...

    def close(self) -> None: ...


class BrokerService:
    """One server for a test session. Its methods block; inside an event loop use `asyncio.to_thread`."""

    def __init__(self, url: str, engine: Engine | None = None) -> None:
        self.url = url
        self._engine = engine

    @property
    def ours(self) -> bool:
        """Whether tests may kill it."""
        return self._engine is not None

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 0

    def start(self) -> None:
        self._administered().start()

    def stop(self, *, immediate: bool = True) -> None:
        """End the server as kill -9 does (`immediate`), else in good order. Data on disk stays."""
        self._administered().stop(immediate=immediate)

    def restart(self, *, immediate: bool = True) -> None:
        """Kill the server, or end it in good order, and start it again on its data."""
        self.stop(immediate=immediate)
        self.start()

    def close(self) -> None:
        """Stop the server and delete its data, if it is ours. Idempotent."""
        if self._engine is not None:
            self._engine.close()

    def _administered(self) -> Engine:
        if self._engine is None:
            raise NotOurs(f"the server of {self.url} is not ours to administer")
        return self._engine


def find_broker(recipe: Recipe) -> BrokerService:
    """A running server: from the environment, Docker, or Debian's package.

    Raises ServiceMissing, or StartFailed when it is installed and did not come up.
    """
    if url := os.environ.get(recipe.variable):
        return BrokerService(url)
    engine: Container | LocalServer
    if docker_answers():
        engine = Container(
            recipe.image,
            port=recipe.port,
            environment={},
            probe=recipe.probe,
            command=["sh", "-c", recipe.script],
        )
        port = engine.published
    elif recipe.program.exists():
        engine = LocalServer(recipe)
        port = engine.port
    else:
        install = f"apt-get install {recipe.package}"
        raise ServiceMissing(recipe.name, variable=recipe.variable, install=install)
    try:
        engine.start()
    except BaseException:
        engine.close()
        raise
    return BrokerService(f"{recipe.scheme}://127.0.0.1:{port}", engine)


class LocalServer:
    """A private server on 127.0.0.1, our child process, with its data in a directory of its own."""

    def __init__(self, recipe: Recipe) -> None:
        self.port = free_port()
        self._recipe = recipe
        self._owner = process_owner(recipe.owner)
        self._home = private_directory(recipe.scheme, self._owner)
        self._log = self._home / "output"
        self._command = list(recipe.configure(self._home, self.port))
        for path in self._home.iterdir():
            if self._owner:
                os.chown(path, self._owner["user"], self._owner["group"])
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
                **self._owner,
            )
        wait_until(self._ready, deadline=20, failed=self._end_of_log)

    def stop(self, *, immediate: bool = False) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGKILL if immediate else signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        self.stop(immediate=True)
        shutil.rmtree(self._home, ignore_errors=True)

    def _ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise StartFailed(self._end_of_log())
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                probe.sendall(self._recipe.greeting)
                return probe.recv(1) == self._recipe.answer
        except OSError:
            return False

    def _end_of_log(self) -> str:
        return f"{self._recipe.name} did not start:\n{self._log.read_text()[-2000:]}"
