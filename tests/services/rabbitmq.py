"""RabbitmqService: a RabbitMQ node that tests may fill, restart and break."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
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

VARIABLE = "HAMMERWORK_TEST_RABBITMQ_URL"
IMAGE = "rabbitmq:4"
DEBIAN = Path("/usr/lib/rabbitmq/bin")
LOOPBACK_ONLY = "-kernel inet_dist_use_interface {127,0,0,1}"
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"


class Engine(Protocol):
    """How a node that is ours is started, stopped and administered."""

    url: str

    @property
    def pid(self) -> int | None:
        """The process above all others of the node, where /proc of this machine shows it."""

    def start(self) -> None: ...

    def stop(self, *, immediate: bool = False) -> None: ...

    def run(self, *command: str) -> str: ...

    def close(self) -> None: ...


class RabbitmqService:
    """One node for a test session. Its methods block; inside an event loop use `asyncio.to_thread`."""

    def __init__(self, url: str, engine: Engine | None = None) -> None:
        self.url = url
        self._engine = engine

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 5672

    @property
    def pid(self) -> int | None:
        """The node's process, for whoever measures it; None where it is not one of this machine."""
        return None if self._engine is None else self._engine.pid

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl on the node; its output. Takes about a second."""
        return self._ours().run("rabbitmqctl", "--quiet", *arguments)

    def close_all_connections(self, reason: str = "closed by a test") -> None:
        self.ctl("close_all_connections", reason)

    def start(self) -> None:
        self._ours().start()

    def stop(self, *, immediate: bool = True) -> None:
        """End the node as kill -9 does (`immediate`), else in good order. Data on disk stays."""
        self._ours().stop(immediate=immediate)

    def restart(self) -> None:
        """Kill the node and start it again on its data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the node and delete its data, if it is ours. Idempotent."""
        if self._engine is not None:
            self._engine.close()

    def _ours(self) -> Engine:
        if self._engine is None:
            raise NotOurs(f"the server of {VARIABLE} is not ours to administer")
        return self._engine


def find_rabbitmq() -> RabbitmqService:
    """A running node: from the environment, Docker, or Debian's package.

    Raises ServiceMissing, or StartFailed when it is installed and did not come up.
    """
    if url := os.environ.get(VARIABLE):
        return RabbitmqService(url)
    engine: Engine
    if docker_answers():
        engine = _docker_rabbitmq()
    elif (DEBIAN / "rabbitmq-server").exists():
        engine = LocalRabbitmq()
    else:
        raise ServiceMissing("RabbitMQ", variable=VARIABLE, install="apt-get install rabbitmq-server")
    try:
        engine.start()
    except BaseException:
        engine.close()
        raise
    return RabbitmqService(engine.url, engine)


class LocalRabbitmq:
    """A private node on 127.0.0.1 with a port mapper (epmd) of its own, both our child processes.

    Debian's wrapper in /usr/sbin insists on the system's own node and home, so the scripts behind it
    are started instead.
    """

    def __init__(self) -> None:
        self._owner = process_owner("rabbitmq")
        self._home = private_directory("rabbitmq", self._owner)
        self._log = self._home / "output"
        self._port, self._mapper_port = free_port(), free_port()
        self._mapper: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None
        self._environment = self._make_environment()
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}/"

    @property
    def pid(self) -> int | None:
        return None if self._node is None else self._node.pid

    def start(self) -> None:
        if self._mapper is None:
            self._mapper = self._spawn("epmd", "-address", "127.0.0.1", "-port", str(self._mapper_port))
        self._node = self._spawn(str(DEBIAN / "rabbitmq-server"), "-noinput")
        wait_until(self._ready, deadline=90, failed=self._end_of_log)

    def stop(self, *, immediate: bool = False) -> None:
        node, self._node = self._node, None
        if node is None:
            return
        node.send_signal(signal.SIGKILL if immediate else signal.SIGTERM)
        try:
            node.wait(timeout=60)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [str(DEBIAN / command[0]), *command[1:]],
            capture_output=True,
            text=True,
            cwd=self._home,
            env=self._environment,
            timeout=60,
            **self._owner,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} answered {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout

    def close(self) -> None:
        self.stop(immediate=True)
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait()
            self._mapper = None
        shutil.rmtree(self._home, ignore_errors=True)

    def _make_environment(self) -> dict[str, str]:
        plugins, settings = self._home / "enabled_plugins", self._home / "rabbitmq.conf"
        plugins.write_text("[].\n")
        settings.write_text("log.console = false\nlog.file.level = warning\n")
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": str(self._home),
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"hammerwork{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self._home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._home / "log"),
            "RABBITMQ_CONF_ENV_FILE": str(self._home / "none"),
            "RABBITMQ_CONFIG_FILE": str(settings),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            # The script then becomes the node instead of starting it, so that its pid is ours to kill.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-start_epmd false {LOOPBACK_ONLY}",
            "RABBITMQ_CTL_ERL_ARGS": "-start_epmd false",
        }

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
                env=self._environment,
                **self._owner,
            )

    def _ready(self) -> bool:
        if self._node is None or self._node.poll() is not None:
            raise StartFailed(self._end_of_log())
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as probe:
                probe.sendall(PROTOCOL_HEADER)
                return len(probe.recv(1)) == 1
        except OSError:
            return False

    def _end_of_log(self) -> str:
        return f"RabbitMQ did not start:\n{self._log.read_text()[-2000:]}"


def _docker_rabbitmq() -> Container:
    container = Container(
        IMAGE,
        port=5672,
        environment={"RABBITMQ_DEFAULT_USER": "guest", "RABBITMQ_DEFAULT_PASS": "guest"},
        probe=["rabbitmq-diagnostics", "check_port_connectivity"],
    )
    container.url = f"amqp://guest:guest@127.0.0.1:{container.published}/"
    return container
