"""Supervisor: keeps a number of processes of one command running, replaces those that die, stops them all."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from ..core.backoff import Backoff
from .lifeline import HURRY, READY, STOP, VARIABLE

log = structlog.get_logger(__name__)

LONGEST_DELAY = 30.0
"""Seconds until a process that dies again and again is replaced; one that lived for longer starts anew."""


class Supervisor:
    """Runs `command` as `processes` processes, each an interpreter of its own.

    The first one proves the command: the others are started when it is ready, and when it ends before, `run`
    ends with its exit code, so that what is wrong is said once. From then on every process that ends is
    replaced. The command must take a Lifeline: its processes read the same environment, and the line, not a
    signal, tells them to stop, because a terminal and an init system signal the whole group anyway.
    """

    def __init__(self, command: Sequence[str], processes: int) -> None:
        self._command = command
        self._processes = processes
        self._children: set[_Child] = set()
        self._codes: list[int] = []
        self._decided = asyncio.Event()
        """The first process is ready, or has ended."""
        self._stopping = asyncio.Event()
        self._hurried = False

    async def run(self) -> int:
        """Run until `stop()`; 0 when every process ended in good order, else the exit code of one that did
        not. Raises OSError, in a group, when the first cannot be started."""
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(self._keep(), name="process 1")
            await self._decided.wait()
            if not first.done() and not self._stopping.is_set():
                log.info("worker processes start", processes=self._processes)
                for number in range(2, self._processes + 1):
                    tasks.create_task(self._keep(), name=f"process {number}")
        code = next((code for code in self._codes if code), 0)
        if self._stopping.is_set():
            log.info("worker processes stopped", exit_code=code)
        return code

    def stop(self) -> None:
        """Let every process stop in good order. A second call hurries them."""
        self._hurried = self._stopping.is_set()
        self._stopping.set()
        for child in self._children:
            self._tell(child)

    def _tell(self, child: _Child) -> None:
        child.order(STOP)
        if self._hurried:
            child.order(HURRY)

    async def _keep(self) -> None:
        """One place among the processes: start one, wait for its end, start another."""
        try:
            await self._replace_until_stopped()
        finally:
            self._decided.set()

    async def _replace_until_stopped(self) -> None:
        backoff = Backoff(longest=LONGEST_DELAY)
        while not self._stopping.is_set():
            began = time.monotonic()
            end = await self._run_one()
            if self._stopping.is_set() or not self._decided.is_set():
                self._note_last(end)
                return
            if time.monotonic() - began > LONGEST_DELAY:
                backoff.reset()
            delay = backoff.next()
            log.warning("worker process ended", pid=end.pid, how=end.how, restart_in=round(delay, 2))
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()

    async def _run_one(self) -> _End:
        try:
            child = await _Child.start(self._command)
        except OSError as error:
            if not self._decided.is_set():
                raise
            return _End(pid=None, code=1, how=f"it could not be started: {error}")
        self._children.add(child)
        if self._stopping.is_set():
            self._tell(child)
        ready = asyncio.create_task(self._decide(child), name="process is ready")
        try:
            return await child.ended()
        finally:
            self._children.discard(child)
            ready.cancel()
            await asyncio.gather(ready, return_exceptions=True)
            child.let_go()

    async def _decide(self, child: _Child) -> None:
        if await child.becomes_ready():
            self._decided.set()

    def _note_last(self, end: _End) -> None:
        """The end of a process that is not replaced. One that was not ready has said itself what is wrong,
        and has left nothing undone at a stop."""
        stopping = self._stopping.is_set()
        if end.code and (end.ready if stopping else end.code < 0):
            log.error("worker process ended badly", pid=end.pid, how=end.how)
        good = end.code == 0 or (stopping and not end.ready)
        self._codes.append(0 if good else max(end.code, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """How a process ended, and whether it had been ready; `code` is negative where a signal ended it."""

    pid: int | None
    code: int
    how: str
    ready: bool = False


class _Child:
    """A process and our end of its line."""

    def __init__(self, process: asyncio.subprocess.Process, line: socket.socket) -> None:
        self._process = process
        self._line = line
        self._ready = False

    @classmethod
    async def start(cls, command: Sequence[str]) -> _Child:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    env={**os.environ, VARIABLE: str(theirs.fileno())},
                    pass_fds=[theirs.fileno()],
                )
        except BaseException:
            ours.close()
            raise
        return cls(process, ours)

    async def becomes_ready(self) -> bool:
        """Wait until it says so, or ends."""
        with suppress(OSError):
            self._ready = await asyncio.get_running_loop().sock_recv(self._line, 1) == READY
        return self._ready

    def order(self, word: bytes) -> None:
        with suppress(OSError):  # it has just ended
            self._line.send(word)

    async def ended(self) -> _End:
        code = await self._process.wait()
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        return _End(pid=self._process.pid, code=code, how=how, ready=self._ready)

    def let_go(self) -> None:
        """Close the line: a process that is still there stops."""
        self._line.close()
