"""What the figures were measured on: the machine, the versions, the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from .arena import Servers
from .peers import PEERS

LIBRARIES = ("asyncpg", "uvloop", "aiohttp", "aiormq", "aio-pika")


def machine() -> dict[str, str]:
    """Processor, cores, memory and kernel."""
    return {
        "processor": _processor(),
        "cores": f"{os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
    }


async def versions(servers: Servers) -> dict[str, str]:
    """Of everything that takes part, and of this checkout."""
    return {
        "hammerwork": version("hammerwork"),
        "commit": _commit(),
        "Python": platform.python_version(),
        "Postgres": await servers.version(),
        **{name: version(name) for name in LIBRARIES},
        **{peer.name: peer.home.version for peer in PEERS},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
