"""The lease of one worker's life: a heartbeat on its own thread and connection, away from handlers."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import structlog

from ..errors import HammerworkError
from ..postgres.database import Database, mapped_errors, statement

log = structlog.get_logger(__name__)

BEATS_A_LEASE = 3


class Lease:
    """Says "I live" for all jobs of a worker at once, three times a lease.

    The beat runs on a thread with an event loop and a connection of its own, so a handler that blocks
    the worker's loop does not look like a dead worker. `worker` is a fresh random id for every life: it is
    part of the claim token, because lease numbers repeat after an asynchronous failover.

    `on_lost` is called, on the worker's loop, when the database says that this life is over (its jobs
    were given to others). `trusted` is False while the last beat is so old that this may have happened
    unheard; claim nothing then.
    """

    def __init__(
        self,
        database: Database,
        *,
        queues: Sequence[str],
        concurrency: int,
        duration: timedelta = timedelta(seconds=30),
        on_lost: Callable[[], None],
    ) -> None:
        self.worker: UUID = uuid4()
        self._database = database
        self._queues = list(queues)
        self._concurrency = concurrency
        self._duration = duration
        self._on_lost = on_lost
        self._stop = threading.Event()
        self._draining = False
        self._thread: threading.Thread | None = None
        self._last_beat = 0.0

    @property
    def trusted(self) -> bool:
        margin = self._duration.total_seconds() / BEATS_A_LEASE
        return time.monotonic() - self._last_beat < self._duration.total_seconds() - margin

    async def begin(self) -> None:
        """Register this life and start to beat. Raises Unavailable or Misconfigured."""
        sent = time.monotonic()
        await self._database.fetch(
            "register_worker", self.worker, socket.gethostname(), os.getpid(), self._queues,
            self._concurrency, self._duration,
        )  # fmt: skip
        self._last_beat = sent
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._beat_until_stopped, args=(loop,), name=f"heartbeat {self.worker}", daemon=True
        )
        self._thread.start()

    def drain(self) -> None:
        """From the next beat on, others see that this worker takes no more work."""
        self._draining = True

    async def end(self) -> None:
        """Stop to beat and leave. What is still held is rescued when the lease is over. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stop.set()
        await asyncio.to_thread(thread.join, 5.0)
        try:
            await self._database.fetch("unregister_worker", self.worker)
        except HammerworkError as error:
            log.warning("worker could not say goodbye", worker=str(self.worker), error=str(error))

    def _beat_until_stopped(self, home: asyncio.AbstractEventLoop) -> None:
        asyncio.run(self._beats(home))

    async def _beats(self, home: asyncio.AbstractEventLoop) -> None:
        every = self._duration.total_seconds() / BEATS_A_LEASE
        connection: asyncpg.Connection | None = None
        try:
            while not await asyncio.to_thread(self._stop.wait, self._until_next(every)):
                try:
                    if connection is None or connection.is_closed():
                        connection = await self._database.connect()
                    alive = await self._beat(connection)
                except HammerworkError as error:
                    log.warning("heartbeat failed", worker=str(self.worker), error=str(error))
                    if connection is not None:
                        connection.terminate()
                        connection = None
                    continue
                if not alive:
                    home.call_soon_threadsafe(self._on_lost)
                    return
        finally:
            if connection is not None:
                connection.terminate()

    async def _beat(self, connection: asyncpg.Connection) -> bool:
        sent = time.monotonic()
        state = "draining" if self._draining else "running"
        with mapped_errors(self._database.where, sent=False):
            rows = await connection.fetch(statement("beat"), self.worker, state, timeout=5.0)
        if rows:
            self._last_beat = sent
        return bool(rows)

    def _until_next(self, every: float) -> float:
        """A beat is due a third of a lease after the last one; after a failure, soon."""
        late = time.monotonic() - self._last_beat - every
        return min(1.0, every / 4) if late > 0 else min(every, -late)
