"""Waiting for results: one shared look for all callers of a process, however many wait."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from .errors import JobCancelled, JobDead, NotFound, ResultExpired, ResultTimeout, Unavailable
from .job import JobState, Json
from .postgres.database import Database, Record

SOONEST = 0.005
SLOWEST = 0.25
GROWTH = 1.5


class ResultWaiter:
    """Polls for every awaited job in one statement, quickly at first and then four times a second.

    A NOTIFY a completion would tax every job for the few that somebody waits for.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._awaited: dict[UUID, list[asyncio.Future[Record]]] = {}
        self._poller: asyncio.Task[None] | None = None
        self._eager = asyncio.Event()

    async def wait(self, job_id: UUID, timeout: timedelta | None) -> Json:
        """The job's result; see `Queue.result`."""
        if not await self._database.fetch("known_jobs", [job_id]):
            raise NotFound(f"no job {job_id}")
        future: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._awaited.setdefault(job_id, []).append(future)
        self._eager.set()
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll(), name="wait for results")
        try:
            async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
                row = await future
        except TimeoutError:
            raise ResultTimeout(f"job {job_id} is not finished after {timeout}") from None
        finally:
            self._forget(job_id, future)
        return _answer(job_id, row)

    async def close(self) -> None:
        """Give up waiting; pending callers get asyncio.CancelledError."""
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
            self._poller = None
        for futures in self._awaited.values():
            for future in futures:
                future.cancel()

    def _forget(self, job_id: UUID, future: asyncio.Future[Record]) -> None:
        futures = self._awaited.get(job_id, [])
        if future in futures:
            futures.remove(future)
        if not futures:
            self._awaited.pop(job_id, None)

    async def _poll(self) -> None:
        wait = SOONEST
        while self._awaited:
            self._eager.clear()
            try:
                rows = await self._database.fetch("outcomes", list(self._awaited))
            except Unavailable:
                rows = []
            except Exception as error:
                self._give_up(error)
                break
            for row in rows:
                for future in self._awaited.get(row["id"], []):
                    if not future.done():
                        future.set_result(row)
            await asyncio.sleep(SOONEST)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._eager.wait()
            wait = SOONEST if self._eager.is_set() else min(wait * GROWTH, SLOWEST)
        self._poller = None

    def _give_up(self, error: Exception) -> None:
        """What waiting cannot mend is every caller's to hear; otherwise they would wait for ever."""
        for futures in self._awaited.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)


def _answer(job_id: UUID, row: Record) -> Json:
    match JobState(row["state"]):
        case JobState.DEAD:
            raise JobDead(job_id, "dead", row["error"])
        case JobState.CANCELLED:
            raise JobCancelled(job_id, "cancelled", row["error"])
        case _ if row["expired"]:
            raise ResultExpired(f"the result of job {job_id} was kept until its TTL was over")
        case _:
            return None if row["result"] is None else json.loads(row["result"])
