"""The commands of a peer in Python, as `Peer` gives them: install, enqueue, drain."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import uvloop
from spent import Spent


def obey(
    install: Callable[[str], Coroutine[Any, Any, None]],
    enqueue: Callable[[str, list[Any]], Coroutine[Any, Any, Spent]],
    drain: Callable[[str, int, str], Coroutine[Any, Any, Spent]],
) -> None:
    """Do what the command line says, and report what that took; the first argument of each is the DSN."""
    command, dsn, jobs, payloads, setting = sys.argv[1:]
    match command:
        case "install":
            uvloop.run(install(dsn))
        case "enqueue":
            given = cycle(json.loads(Path(payloads).read_text()))
            uvloop.run(enqueue(dsn, list(islice(given, int(jobs))))).report()
        case "drain":
            uvloop.run(drain(dsn, int(jobs), setting)).report()
