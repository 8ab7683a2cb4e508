"""AwsService: an emulator of SQS, Kinesis and S3 that tests may fill, stop and break."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from typing import IO, Protocol, TypedDict
from urllib.parse import urlsplit
from urllib.request import urlopen

from . import NotOurs, ServiceMissing, StartFailed, docker_answers, free_port, wait_until
from .container import Container

VARIABLE = "HAMMERWORK_TEST_AWS_ENDPOINT"
IMAGE = "motoserver/moto:latest"
REGION = "eu-central-1"


class Engine(Protocol):
    """How an emulator that is ours is started and stopped. It keeps nothing over a stop."""

    url: str

    @property
    def pid(self) -> int | None:
        """The process of the emulator, where /proc of this machine shows it."""

    def start(self) -> None: ...

    def stop(self, *, immediate: bool = False) -> None: ...

    def close(self) -> None: ...


class ClientArguments(TypedDict):
    """What `aiobotocore.session.get_session().create_client(service, …)` needs to reach an endpoint."""

    endpoint_url: str
    region_name: str
    aws_access_key_id: str
    aws_secret_access_key: str


class AwsService:
    """One endpoint for a test session. Its methods block; inside an event loop use `asyncio.to_thread`.

    The keys are made up at run time; the emulator takes any.
    """

    region = REGION

    def __init__(self, endpoint: str, engine: Engine | None = None) -> None:
        self.endpoint = endpoint
        self.access_key = f"AKIA{secrets.token_hex(8).upper()}"
        self.secret_key = secrets.token_urlsafe(30)
        self._engine = engine

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.endpoint)
        return parts.hostname or "127.0.0.1", parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def pid(self) -> int | None:
        return None if self._engine is None else self._engine.pid

    def client_arguments(self) -> ClientArguments:
        return {
            "endpoint_url": self.endpoint,
            "region_name": self.region,
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
        }

    def environment(self) -> dict[str, str]:
        """What makes the standard credential chain of a process find these keys and no others."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def start(self) -> None:
        self._ours().start()

    def stop(self, *, immediate: bool = True) -> None:
        """End the emulator. It forgets its queues, streams and buckets."""
        self._ours().stop(immediate=immediate)

    def close(self) -> None:
        """Stop the emulator, if it is ours. Idempotent."""
        if self._engine is not None:
            self._engine.close()

    def _ours(self) -> Engine:
        if self._engine is None:
            raise NotOurs(f"the server of {VARIABLE} is not ours to stop")
        return self._engine


def find_aws() -> AwsService:
    """A running emulator: from the environment, Docker, or moto in a process of its own.

    Raises ServiceMissing, or StartFailed when it is installed and did not come up.
    """
    if endpoint := os.environ.get(VARIABLE):
        return AwsService(endpoint)
    engine: Engine
    if docker_answers():
        engine = _docker_moto()
    elif _moto_installed():
        engine = LocalMoto()
    else:
        raise ServiceMissing("AWS emulator", variable=VARIABLE, install="pip install 'moto[server]'")
    try:
        engine.start()
    except BaseException:
        engine.close()
        raise
    return AwsService(engine.url, engine)


class LocalMoto:
    """moto's threaded server in a process of its own: it can be killed, and shares no lock with a test."""

    def __init__(self) -> None:
        self._port = free_port()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the server runs
        self._server: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        return None if self._server is None else self._server.pid

    def start(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        wait_until(self._ready, deadline=60, failed=self._end_of_log)

    def stop(self, *, immediate: bool = False) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.send_signal(signal.SIGKILL if immediate else signal.SIGTERM)
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    def close(self) -> None:
        self.stop(immediate=True)
        self._log.close()

    def _ready(self) -> bool:
        if self._server is None or self._server.poll() is not None:
            raise StartFailed(self._end_of_log())
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1):
                pass
            with urlopen(f"{self.url}/moto-api/data.json", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _end_of_log(self) -> str:
        self._log.seek(0)
        return f"moto did not start:\n{self._log.read()[-2000:].decode(errors='replace')}"


def _moto_installed() -> bool:
    try:
        import flask  # noqa: F401
        import moto  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def _docker_moto() -> Container:
    alive = "import urllib.request as u; u.urlopen('http://127.0.0.1:5000/moto-api/data.json')"
    container = Container(IMAGE, port=5000, environment={}, probe=["python", "-c", alive])
    container.url = f"http://127.0.0.1:{container.published}"
    return container
