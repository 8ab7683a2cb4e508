"""The command `hammerwork`: operate the queue, run the processes; heavy modules load when it talks to one."""

from __future__ import annotations

from .tree import main

__all__ = ["main"]
