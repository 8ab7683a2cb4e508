"""Container: a server in Docker whose port stays the same over a restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import free_port, wait_until


class Container:
    """One container of `image`; `crash` is the signal that ends its server without a clean shutdown.

    It is ready when `probe` (a command inside it) exits with 0. Its `port` is to be had at `published`
    of this machine, a free one where none is given. Whoever makes it fills in `url`.
    """

    url = ""

    def __init__(
        self,
        image: str,
        *,
        port: int,
        published: int | None = None,
        environment: Mapping[str, str],
        probe: Sequence[str],
        command: Sequence[str] = (),
        crash: str = "SIGKILL",
    ) -> None:
        from testcontainers.core.container import DockerContainer

        self.published = published or free_port()
        self._probe = list(probe)
        self._crash = crash
        self._container = (
            DockerContainer(image).with_bind_ports(port, self.published).with_envs(**environment)
        )
        if command:
            self._container.with_command(list(command))
        self._created = False

    @property
    def pid(self) -> int | None:
        return None  # the engine may run it in a virtual machine

    def start(self) -> None:
        if self._created:
            self._wrapped().start()
        else:
            self._container.start()
            self._created = True
        wait_until(self._ready, deadline=90, failed=self._end_of_log)

    def stop(self, *, immediate: bool = False) -> None:
        if immediate:
            self._wrapped().kill(self._crash)
            self._wrapped().wait(timeout=20)
        else:
            self._wrapped().stop(timeout=20)

    def run(self, *command: str) -> str:
        """Run a command inside the container; its output."""
        code, output = self._wrapped().exec_run(list(command))
        if code:
            raise RuntimeError(f"{command[0]} answered {code}: {output.decode(errors='replace')}")
        return str(output.decode())

    def close(self) -> None:
        if self._created:
            self._container.stop()
            self._created = False

    def _wrapped(self) -> Any:
        return self._container.get_wrapped_container()

    def _ready(self) -> bool:
        return bool(self._wrapped().exec_run(self._probe)[0] == 0)

    def _end_of_log(self) -> str:
        return str(self._wrapped().logs(tail=40).decode(errors="replace"))
