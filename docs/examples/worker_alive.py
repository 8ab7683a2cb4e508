"""The health check of a worker's container: exits 0 while the heartbeat of a worker on this host is fresh."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from hammerwork.core import operate
from hammerwork.core.postgres.database import Database


async def alive(dsn: str, host: str) -> bool:
    """Whether a worker that is not lost beats on `host`."""
    async with Database(dsn, size=1) as database:
        return any(worker.host == host and not worker.lost for worker in await operate.workers(database))


if __name__ == "__main__":
    sys.exit(not asyncio.run(alive(os.environ["HAMMERWORK_DATABASE_URL"], socket.gethostname())))
