"""The installed command, run as users run it: as a process with an environment of its own."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

COMMAND = Path(sys.executable).with_name("hammerwork")
WITHIN = 30.0


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]


class Hammerwork:
    """Runs the installed console script with an environment of its own."""

    def __init__(self, folder: Path, dsn: str | None = None) -> None:
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_DATA_HOME": str(folder / "data"),
        }
        if dsn is not None:
            self.environment["HAMMERWORK_DATABASE_URL"] = dsn

    async def __call__(
        self, *arguments: object, given: str | bytes = b"", more: Mapping[str, str] | None = None
    ) -> Ran:
        process = await self.started(*arguments, more=more)
        body = given.encode() if isinstance(given, str) else given
        out, err = await asyncio.wait_for(process.communicate(body), WITHIN)
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())

    async def started(
        self, *arguments: object, more: Mapping[str, str] | None = None, own_group: bool = False
    ) -> asyncio.subprocess.Process:
        """`own_group`: as a shell starts it, so that a signal may go to all of its processes."""
        return await asyncio.create_subprocess_exec(
            COMMAND,
            *map(str, arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env={**self.environment, **(more or {})},
            process_group=0 if own_group else None,
            # A shell that starts the tests in the background makes all its children deaf to Ctrl-C.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    def on_a_terminal(self, *arguments: object, typed: str = "", columns: int = 80) -> tuple[int, str]:
        """Run with a pseudo-terminal for all three streams; the exit code and the screen."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [COMMAND, *map(str, arguments)], stdin=slave, stdout=slave, stderr=slave,
            cwd=self.folder, env={**self.environment, "COLUMNS": str(columns), "TERM": "xterm"},
        )  # fmt: skip
        os.close(slave)
        os.write(master, typed.encode())
        screen = b"".join(_read_all(master))
        os.close(master)
        return process.wait(WITHIN), screen.decode().replace("\r\n", "\n")


def _read_all(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # Linux says EIO when the other side is closed
            return
        if not chunk:
            return
        yield chunk


def assert_one_clear_line(ran: Ran, words: str, *, hint: str = "") -> None:
    """`error:` with these words, `hint:` with those, nothing else, and no traceback."""
    lines = ran.err.splitlines()
    assert ran.code != 0
    assert ran.out == ""
    assert "Traceback" not in ran.err
    assert lines[0].startswith("error: ")
    assert words in lines[0], ran.err
    assert [line.partition(": ")[0] for line in lines] == ["error", "hint"][: len(lines)]
    if hint:
        assert hint in lines[1]


@contextmanager
def ended(process: asyncio.subprocess.Process) -> Iterator[None]:
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()


async def stopped(process: asyncio.subprocess.Process) -> str:
    """Ask for the end in good order; what it wrote to standard error."""
    process.send_signal(signal.SIGTERM)
    out, err = await asyncio.wait_for(process.communicate(), WITHIN)
    assert (process.returncode, out) == (0, b""), err
    return err.decode()
