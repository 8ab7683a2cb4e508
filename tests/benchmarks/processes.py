"""CPU time and memory of a process and everything below it, as /proc tells them."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    ticks: int
    """Its own time and that of the children it has waited for."""
    pages: int


def cpu_seconds(root: int | None) -> float | None:
    """Seconds that the tree of processes under `root` has used since it began; None without /proc."""
    tree = _tree(root)
    return sum(process.ticks for process in tree) / TICK if tree else None


def resident_bytes(root: int | None) -> int | None:
    """Memory of the tree; pages that its processes share count once for each of them."""
    tree = _tree(root)
    return sum(process.pages for process in tree) * PAGE if tree else None


def _tree(root: int | None) -> list[_Process]:
    if root is None:
        return []
    processes = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            processes[int(path.parent.name)] = _read(path.read_text())
    members = {root}
    while more := {pid for pid, p in processes.items() if p.parent in members} - members:
        members |= more
    return [processes[pid] for pid in members if pid in processes]


def _read(stat: str) -> _Process:
    # The name, in brackets, may itself hold spaces and brackets; state is the field after it.
    fields = stat.rpartition(")")[2].split()
    return _Process(
        parent=int(fields[1]), ticks=sum(int(field) for field in fields[11:15]), pages=int(fields[21])
    )
