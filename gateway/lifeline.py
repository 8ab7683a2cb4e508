"""The line between a supervisor and a process of its own: orders go down, "ready" comes up, and the end of
the line tells each of them that the other is gone."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

VARIABLE = "HAMMERWORK_LIFELINE"
"""The number of the line's file descriptor, in the environment of a supervised process."""

STOP, HURRY, READY = b"s", b"h", b"r"

HURRIED_WITHIN = timedelta(seconds=20)
"""What a process that must stop gets beyond its drain to cancel its handlers and write their outcomes."""


@dataclass(frozen=True, slots=True)
class _Obeying:
    loop: asyncio.AbstractEventLoop
    stop: Callable[[], None]
    hurry: Callable[[], None]
    drain: timedelta


class Lifeline:
    """A supervised process' end.

    A thread listens, so that an event loop that a handler holds up does not keep the process alive: told to
    stop, or when the supervisor is gone, it stops in good order, and ends in any case when its drain is over.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._obeying: _Obeying | None = None
        self._end: threading.Timer | None = None
        threading.Thread(target=self._listen, name="lifeline", daemon=True).start()

    @classmethod
    def inherited(cls) -> Self | None:
        """The line of this process, where a supervisor has started it; taken out of the environment, because
        what this process starts has another parent."""
        number = os.environ.pop(VARIABLE, None)
        if number is None:
            return None
        line = socket.socket(fileno=int(number))
        line.set_inheritable(False)
        return cls(line)

    def obey(self, *, stop: Callable[[], None], hurry: Callable[[], None], drain: timedelta) -> None:
        """Say that this process is ready, and call these on the running loop from now on. Before, nothing
        has begun, and an order to stop ends the process at once."""
        self._obeying = _Obeying(asyncio.get_running_loop(), stop, hurry, drain)
        with suppress(OSError):
            self._line.send(READY)

    def _listen(self) -> None:
        while (order := self._received()) is not None:
            if self._obeying is None:
                os._exit(0)
            self._obey(self._obeying, order)
        if self._obeying is None:
            os._exit(1)
        self._obey(self._obeying, STOP)

    def _obey(self, obeying: _Obeying, order: bytes) -> None:
        _call(obeying.loop, obeying.stop if order == STOP else obeying.hurry)
        if self._end is None:
            within = (obeying.drain + HURRIED_WITHIN).total_seconds()
            self._end = threading.Timer(within, os._exit, [1])
            self._end.daemon = True
            self._end.start()

    def _received(self) -> bytes | None:
        try:
            return self._line.recv(1) or None
        except OSError:
            return None


def _call(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop is closed: the process is ending by itself
        loop.call_soon_threadsafe(what)
