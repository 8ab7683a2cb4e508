"""Worker: claims jobs as slots come free, runs their handlers, and hands everything back when it stops."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import structlog

from ..backoff import Backoff
from ..errors import CommitUnknown, HammerworkError, Misconfigured, Unavailable
from ..postgres.database import Database, Record
from ..postgres.notifier import Notifier
from ..postgres.store import Requeue
from ..queue import Queue
from ..upkeep import Upkeep
from .execution import unreadable
from .floors import Floors
from .handlers import Handler, Handlers
from .lease import BEATS_A_LEASE, Lease
from .roster import LARGEST_CLAIM, Roster, Wanted, WorkerCounts
from .running import Interrupt, RunningJob
from .settle import Settler

log = structlog.get_logger(__name__)

UNSETTLED_LIMIT = 5000
"""With this many outcomes not written yet nothing more is claimed: Postgres is slow or away."""

STRAYS_AFTER = 0.5
"""Seconds after a claim was cut until what it took is handed back."""

SETTLE_WITHIN = 10.0
"""Seconds that a stopping worker waits for its last outcomes; what is not written is rescued."""


class Worker:
    """Runs the jobs of one or more queues in this process.

        worker = Worker(queue, handlers, concurrency=20)
        await worker.run()          # until worker.stop()

    `concurrency` is how many handlers run at once. `lease` is how long its jobs stay with it after its
    last heartbeat: the longest time that jobs of a killed worker wait. `drain` is how long running
    handlers may take to end after `stop()`; then they are cancelled and their jobs given back, without
    burning an attempt. `poll` is how often an idle worker looks without being told.
    """

    def __init__(
        self,
        queue: Queue,
        handlers: Handlers | Mapping[str, Handler],
        *,
        concurrency: int = 20,
        lease: timedelta = timedelta(seconds=30),
        drain: timedelta = timedelta(seconds=30),
        poll: timedelta = timedelta(seconds=1),
        notifier: Notifier | None = None,
        upkeep: bool = True,
    ) -> None:
        if concurrency < 1:
            raise Misconfigured(f"concurrency must be at least 1, not {concurrency}")
        self.handlers = handlers if isinstance(handlers, Handlers) else Handlers(handlers)
        if not self.handlers:
            raise Misconfigured("a worker needs a handler", hint='Worker(queue, {"orders": handle_order})')
        if not queue.database.reachable:
            raise Misconfigured(
                "a worker needs a DSN: its heartbeat has a connection of its own",
                hint="Worker(Queue(dsn), …), beside the Queue on your pool",
            )
        self.concurrency = concurrency
        self.lease = lease
        self.drain = drain
        self.poll = poll
        self.counts = WorkerCounts()
        self._database = queue.database
        self._notifier = notifier
        self._upkeep = upkeep
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> None:
        """Work until `stop()`, through any number of lives: a lost lease starts a new one.

        Raises Misconfigured when trying again cannot help (no schema, no password).
        """
        try:
            await self._run()
        except ExceptionGroup as group:
            wrong, _ = group.split(Misconfigured)
            raise (group if wrong is None else wrong.exceptions[0]) from None

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            companions = []
            notifier = self._notifier
            if notifier is None:
                notifier = Notifier(self._database)
                companions.append(tasks.create_task(notifier.run(), name="notifier"))
            if self._upkeep:
                companions.append(tasks.create_task(Upkeep(self._database).run(), name="upkeep"))
            while not self._stopping.is_set():
                life = _Life(self, self._database, self.counts)
                forget = notifier.subscribe(life)
                try:
                    await life.live(self._stopping, self._hurry)
                finally:
                    forget()
            for companion in companions:
                companion.cancel()

    def stop(self) -> None:
        """Take no more work, hand back what has not started, end what runs. A second call hurries:
        running handlers are cancelled at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()


class WorkerPool:
    """Several workers in one process, started and stopped together."""

    def __init__(self, *workers: Worker) -> None:
        self.workers = workers

    async def run(self) -> None:
        """Run all of them until `stop()`."""
        async with asyncio.TaskGroup() as tasks:
            for number, worker in enumerate(self.workers):
                tasks.create_task(worker.run(), name=f"worker {number}")

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()


class _Life:
    """One life of a worker, from its registration to its end or the loss of its lease."""

    def __init__(self, worker: Worker, database: Database, counts: WorkerCounts) -> None:
        self._database = database
        self._poll = worker.poll.total_seconds()
        self._poll_due = 0.0
        """When all queues are asked again, whatever is known of them (monotonic seconds)."""
        self._drain = worker.drain
        self._beat = worker.lease.total_seconds() / BEATS_A_LEASE
        self._wake = asyncio.Event()
        self._lease = Lease(
            database,
            queues=sorted(worker.handlers),
            concurrency=worker.concurrency,
            duration=worker.lease,
            on_lost=self._lost,
        )
        self._settler = Settler(database, self._lease.worker, on_stale=self._stale)
        self._roster = Roster(
            worker.handlers, worker.concurrency, settle=self._settler.add, wake=self._wake.set, counts=counts
        )
        self._floors = Floors()
        self._is_lost = False
        self._strays_due: list[float] = []
        """When to look for jobs that we claimed without hearing of it (monotonic seconds)."""
        self._suspects: set[tuple[UUID, int]] = set()
        """Jobs that the last look did not find ours: lost, or just completed by their own transaction."""
        self._look = asyncio.Event()
        self._dry: set[str] = set()
        """Queues in which the last claim found less than there was room for; a queue that is held back by
        its own limit is not among them and is claimed as soon as one of its jobs ends."""
        self._hinted: set[str] = set()
        """Queues announced while a claim is under way, which may not have seen their new jobs."""

    # --- what the notifier says ---

    def work_waits(self, queue: str) -> None:
        if queue in self._roster.handlers:
            self._dry.discard(queue)
            self._hinted.add(queue)
            self._wake.set()

    def hints_missed(self) -> None:
        self._dry.clear()
        self._hinted.update(self._roster.handlers)
        self._wake.set()
        self._look.set()

    def cancel_asked(self, job_id: UUID) -> None:
        self._roster.cancel(job_id)

    # --- the life ---

    async def live(self, stopping: asyncio.Event, hurry: asyncio.Event) -> None:
        """Claim and run until `stopping` is set or the lease is lost, then wind down."""
        await self._register(stopping)
        duties = [
            asyncio.create_task(self._settler.run(), name="settler"),
            asyncio.create_task(self._watch(), name="watch held jobs"),
            asyncio.create_task(self._wake_at(stopping), name="wake to stop"),
        ]
        try:
            while not stopping.is_set() and not self._is_lost:
                await self._claim(stopping)
                await self._rest()
            await self._wind_down(hurry)
        finally:
            self._roster.close()
            for duty in duties:
                duty.cancel()
            await asyncio.gather(*duties, return_exceptions=True)
            await self._lease.end()

    async def _register(self, stopping: asyncio.Event) -> None:
        backoff = Backoff()
        while not stopping.is_set():
            try:
                await self._lease.begin()
                return
            except Unavailable as error:
                delay = backoff.next()
                log.warning("worker cannot register yet", error=str(error), retry_in=round(delay, 2))
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await stopping.wait()

    async def _claim(self, stopping: asyncio.Event) -> None:
        """Claim for the free slots, again and again while whole claims come back."""
        rested = True
        while not stopping.is_set() and self._lease.trusted and self._settler.pending < UNSETTLED_LIMIT:
            if self._strays_due and time.monotonic() >= self._strays_due[0]:
                await self._release_strays()
            if time.monotonic() >= self._poll_due:
                # Here and not where it rests: one busy queue must not keep the others from being asked.
                self._dry.clear()
                self._poll_due = time.monotonic() + self._poll
                # At whole queues, as after a rest: a look from the floors would only make the poll due again.
                rested = True
            wanted = self._roster.wanted(self._dry)
            if wanted is None:
                return
            self._hinted.clear()
            try:
                rows = await self._fetch(wanted, rested)
            except Unavailable as error:
                log.warning("claim failed", error=str(error))
                if isinstance(error, CommitUnknown):
                    now = time.monotonic()
                    self._strays_due = [now + STRAYS_AFTER, now + self._beat]
                    self._poll_due = min(self._poll_due, self._strays_due[0])
                self._dry |= set(wanted.limits)
                return
            if len(rows) < wanted.total:
                exhausted = wanted.exhausted(Counter(row["queue"] for row in rows))
                self._dry |= exhausted - self._hinted
            self._roster.take(self._readable(rows))
            rested = False

    async def _fetch(self, wanted: Wanted, rested: bool) -> list[Record]:
        started = time.monotonic()
        whole = started >= self._floors.next_whole_look(rested=rested)
        columns = self._floors.columns(wanted, whole=whole)
        rows = await self._database.fetch("claim", *columns, wanted.total, self._lease.worker)
        self._floors.claimed(rows, whole=whole, seconds=time.monotonic() - started)
        if not whole and len(rows) < wanted.total:
            # Only a whole look shows that nothing is left.
            self._poll_due = min(self._poll_due, self._floors.next_whole_look(rested=True))
        return rows

    async def _release_strays(self) -> None:
        """Hand back what a claim took whose answer was cut. Never beside a claim, whose jobs would look
        like strays; twice, because the server may still have been at it the first time."""
        try:
            known = self._roster.holds() | self._settler.holds()
            most = len(known) + LARGEST_CLAIM
            rows = await self._database.fetch("jobs_held_by", self._lease.worker, most)
        except Unavailable:
            return
        known |= self._roster.holds() | self._settler.holds()
        strays = [row for row in rows if row["id"] not in known]
        for row in strays:
            self._settler.add(Requeue(id=row["id"], lease=row["lease"], kind="released"))
        del self._strays_due[0]
        if strays:
            log.warning("handed back what a cut claim had taken", jobs=len(strays))

    def _readable(self, rows: Sequence[Record]) -> list[RunningJob]:
        """The jobs of these rows. One that cannot be read is dead, and takes nothing else with it."""
        jobs = []
        for row in rows:
            try:
                jobs.append(RunningJob(row, self._lease.worker, self._database))
            except Exception as error:
                log.error("stored job cannot be read", job=str(row["id"]), error=str(error))
                self._settler.add(unreadable(row, error))
        return jobs

    async def _rest(self) -> None:
        """Until a slot is free, work is announced, somebody says stop, or the poll is due."""
        left = self._poll_due - time.monotonic()
        with suppress(TimeoutError):
            # A poll that is overdue was held back, because nothing may be claimed now: not at once, then.
            # Not wait_for, which before Python 3.12 loses a cancellation that comes with the word.
            async with asyncio.timeout(left if left > 0 else self._poll):
                await self._wake.wait()
        self._wake.clear()

    async def _watch(self) -> None:
        """Every beat, and when hints were missed, ask what we still hold: a job cancelled or taken over is
        stopped, hint or no hint."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._beat):
                    await self._look.wait()
            self._look.clear()
            running = self._roster.running()
            if not running:
                continue
            try:
                rows = await self._database.fetch("held_jobs", self._lease.worker, list(running))
            except HammerworkError:
                continue
            held = {row["id"]: row for row in rows}
            missing = set()
            for job_id, lease in running.items():
                row = held.get(job_id)
                if row is None or row["lease"] != lease:
                    missing.add((job_id, lease))
                elif row["cancel_reason"] is not None:
                    self._roster.interrupt(job_id, lease, Interrupt.CANCEL_ASKED)
            for job_id, lease in missing & self._suspects:
                self._roster.interrupt(job_id, lease, Interrupt.LEASE_LOST)
            self._suspects = missing

    async def _wake_at(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._wake.set()

    async def _wind_down(self, hurry: asyncio.Event) -> None:
        if self._is_lost:
            await self._roster.stop(Interrupt.LEASE_LOST)
            return
        self._lease.drain()
        self._roster.hand_back_waiting()
        hurried = asyncio.create_task(hurry.wait(), name="hurry")
        ended = asyncio.create_task(self._roster.empty(), name="running handlers")
        await asyncio.wait(
            {hurried, ended}, timeout=self._drain.total_seconds(), return_when=asyncio.FIRST_COMPLETED
        )
        for task in (hurried, ended):
            task.cancel()
        await self._roster.stop(Interrupt.WORKER_STOPS)
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_WITHIN):
                await self._settler.drain()

    def _lost(self) -> None:
        log.error("lease lost: jobs of this worker were given to others", worker=str(self._lease.worker))
        self._is_lost = True
        self._wake.set()

    def _stale(self, ids: set[UUID]) -> None:
        log.warning(
            "settled by somebody else meanwhile; our outcome changed nothing", jobs=[str(i) for i in ids]
        )
