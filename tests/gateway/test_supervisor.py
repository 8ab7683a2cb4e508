"""The exit code of a supervisor that is told to stop, by what its processes were when they ended."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from hammerwork.gateway.lifeline import READY, STOP, VARIABLE
from hammerwork.gateway.supervisor import Supervisor

from .command import WITHIN

PROCESS = f"""
import os, socket, sys
from pathlib import Path

line = socket.socket(fileno=int(os.environ[{VARIABLE!r}]))
if sys.argv[1] == "ready":
    line.send({READY!r})
Path(sys.argv[2], str(os.getpid())).touch()
while line.recv(1) != {STOP!r}:
    pass
os._exit(int(sys.argv[3]))
"""


@pytest.mark.parametrize(
    ("was", "code", "answer"),
    [
        ("starting", 3, 0),  # it had begun nothing, so that it has left nothing undone
        ("ready", 3, 3),
        ("ready", 0, 0),
    ],
)
async def test_at_a_stop_only_a_process_that_was_ready_can_end_badly(
    tmp_path: Path, was: str, code: int, answer: int
) -> None:
    supervisor = Supervisor([sys.executable, "-c", PROCESS, was, str(tmp_path), str(code)], 2)
    expected = 2 if was == "ready" else 1
    async with asyncio.timeout(WITHIN):
        running = asyncio.create_task(supervisor.run())
        while len(os.listdir(tmp_path)) < expected:  # noqa: ASYNC110 - other processes make them
            await asyncio.sleep(0.02)
        supervisor.stop()
        assert await running == answer
