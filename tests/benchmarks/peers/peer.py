"""Peer: another job queue, installed once under build/bench, run in its own processes on the same server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..arena import Arena
from ..measure import RATE, Measure
from ..payloads import payloads
from ..row import Absent, Side
from ..stages import empty

HERE = Path(__file__).parent
BUILD = Path("build/bench")
SLOWEST = 300.0
"""Seconds that one command of a peer may take."""


class Home(Protocol):
    """What a peer is installed in. `command` installs at its first call and answers how scripts are run."""

    @property
    def version(self) -> str: ...

    def command(self, folder: Path) -> Sequence[str]:
        """Raises Absent when it cannot be installed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Venv:
    """A virtual environment of its own, with at least this Python."""

    packages: Sequence[str]
    python: tuple[int, int] = (3, 11)

    @property
    def version(self) -> str:
        return self.packages[0].partition("==")[2]

    def command(self, folder: Path) -> Sequence[str]:
        python = folder / "bin" / "python"
        done = folder / "installed"
        if not (done.exists() and done.read_text() == repr(self.packages)):
            _run(_interpreter(self.python), "-m", "venv", "--clear", str(folder))
            pip = (str(python), "-m", "pip", "--quiet", "--disable-pip-version-check")
            _run(*pip, "install", *self.packages)
            done.write_text(repr(self.packages))
        return [str(python)]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeModules:
    """A folder of npm's, where node and npm are found."""

    package: str
    version: str

    def command(self, folder: Path) -> Sequence[str]:
        node, npm = shutil.which("node"), shutil.which("npm")
        if node is None or npm is None:
            raise Absent("needs node and npm")
        if not (folder / "node_modules" / self.package).exists():
            folder.mkdir(parents=True, exist_ok=True)
            _run(npm, "install", "--silent", "--no-package-lock", "--prefix", str(folder),
                 f"{self.package}@{self.version}")  # fmt: skip
        return [node]


@dataclass(slots=True, kw_only=True)
class Peer:
    """A queue beside ours, with the same jobs. Before its first round all `settings` are tried; the best
    of them counts. A slow peer is given fewer `jobs`, so that a round ends in seconds."""

    name: str
    script: str
    home: Home
    jobs: int
    settings: Sequence[str] = ("",)
    _best: str | None = field(default=None, init=False)

    @property
    def enqueueing(self) -> Side:
        return Side(name=self.name, run=self._enqueue, stage=empty)

    @property
    def draining(self) -> Side:
        return Side(name=self.name, run=self._drain, stage=empty)

    async def _enqueue(self, arena: Arena) -> Measure:
        await self._script("install", arena)
        return await self._measured("enqueue", arena)

    async def _drain(self, arena: Arena) -> Measure:
        if self._best is None:
            self._best = await self._tried(arena)
        return await self._drained(arena, self._best)

    async def _tried(self, arena: Arena) -> str:
        """The setting that drains fastest, each in a database of its own."""
        rates = {}
        for setting in self.settings:
            async with arena.another() as fresh:
                rates[setting] = RATE.of(await self._drained(fresh, setting)) or 0.0
        return max(rates, key=rates.__getitem__)

    async def _drained(self, arena: Arena, setting: str) -> Measure:
        await self._script("install", arena)
        await self._script("enqueue", arena)
        await arena.analyse()
        measure = await self._measured("drain", arena, setting)
        measure.setting = setting
        return measure

    async def _measured(self, command: str, arena: Arena, setting: str = "") -> Measure:
        async with arena.measured(self.jobs) as measure:
            output = await self._script(command, arena, setting)
        spent = json.loads(output.splitlines()[-1])
        # Its own clock: starting an interpreter is no part of the work.
        measure.seconds, measure.client_cpu = spent["seconds"], spent["cpu"]
        return measure

    async def _script(self, command: str, arena: Arena, setting: str = "") -> str:
        folder = BUILD / self.name.lower().replace(" ", "-")
        given = BUILD / "payloads.json"
        run = await asyncio.to_thread(self.home.command, folder)
        given.write_text(json.dumps(payloads(1000)))
        process = await asyncio.create_subprocess_exec(
            *run, str(HERE / self.script), command, arena.dsn, str(self.jobs), str(given), setting,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "NODE_PATH": str((folder / "node_modules").absolute())},
        )  # fmt: skip
        async with asyncio.timeout(SLOWEST):
            output, errors = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"{self.name} {command} failed:\n{errors.decode()[-2000:]}")
        return output.decode()


def _interpreter(oldest: tuple[int, int]) -> str:
    """A Python of at least this version: ours, one on the path, or one of pyenv's."""
    if sys.version_info[:2] >= oldest:
        return sys.executable
    names = [f"python3.{minor}" for minor in range(oldest[1], oldest[1] + 4)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(name) for name in names]
    found += [str(path) for name in names for path in sorted(pyenv.glob(f"*/bin/{name}"))]
    for candidate in found:
        # pyenv's shims are on the path for versions that are not chosen, and fail.
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    raise Absent(f"needs Python {oldest[0]}.{oldest[1]} or newer")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Absent(f"could not be installed: {(done.stderr or done.stdout).strip()[-300:]}")
