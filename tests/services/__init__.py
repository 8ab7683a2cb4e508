"""Real servers for tests, and the one place that decides where each of them comes from.

In this order: a URL in the environment; Docker, where an engine answers; a private server started
from what is installed; otherwise `ServiceMissing`, which a fixture turns into a skip.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pwd
import socket
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TypedDict


class ServiceMissing(Exception):
    """A server is neither named, nor runnable in Docker, nor installed."""

    def __init__(self, server: str, *, variable: str, install: str) -> None:
        super().__init__(f"no {server}: set {variable}, start a Docker engine, or run `{install}`")


class NotOurs(Exception):
    """The server was named by the environment, so a test may not stop or restart it."""


class StartFailed(Exception):
    """A server is installed but did not come up; the message ends with the end of its log."""


@cache
def docker_answers() -> bool:
    """Whether a Docker engine answers within two seconds."""
    try:
        import docker  # type: ignore[import-untyped]
    except ImportError:
        return False
    with warnings.catch_warnings():
        # The client drops its socket unclosed where nobody answers.
        warnings.simplefilter("ignore", ResourceWarning)
        answers = _ping(docker)
        gc.collect()
    return answers


def _ping(docker: ModuleType) -> bool:
    try:
        client = docker.from_env(timeout=2)
    except docker.errors.DockerException:
        return False
    with contextlib.closing(client), contextlib.suppress(docker.errors.DockerException):
        return bool(client.ping())
    return False


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(ready: Callable[[], bool], *, deadline: float, failed: Callable[[], str]) -> None:
    """Poll `ready` every 20 ms; raises StartFailed with `failed()` after `deadline` seconds."""
    end = time.monotonic() + deadline
    while not ready():
        if time.monotonic() > end:
            raise StartFailed(failed())
        time.sleep(0.02)


class ProcessOwner(TypedDict, total=False):
    """The arguments of `subprocess` that say whom a process runs as."""

    user: int
    group: int
    extra_groups: list[int]


def process_owner(preferred: str) -> ProcessOwner:
    """Whom to run a server as: root may not, so `preferred` or else nobody; empty means ourselves."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(preferred)
    except KeyError:
        entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def private_directory(name: str, owner: ProcessOwner) -> Path:
    """A new temporary directory that belongs to `owner`."""
    directory = Path(tempfile.mkdtemp(prefix=f"hammerwork-{name}-"))
    if owner:
        os.chown(directory, owner["user"], owner["group"])
    return directory
