"""The jobs that a worker holds: those that wait for a slot and those whose handlers run."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import structlog

from ..job import JobState
from ..postgres.store import Finish, Requeue
from .execution import Verdict, interrupted, run
from .handlers import Handlers
from .running import Interrupt, RunningJob

log = structlog.get_logger(__name__)

PREFETCH_SECONDS = 0.02
"""A worker claims what it will start within this time beyond its free slots: short jobs then do not wait
for round trips, and long jobs are not held back from idle workers."""

LARGEST_CLAIM = 1000
STOP_WITHIN = 5.0
"""Seconds that a cancelled handler has to end; one that does not is left behind, fenced."""


@dataclass(slots=True)
class WorkerCounts:
    """What a worker has done since it started; read by telemetry."""

    claimed: Counter[str] = field(default_factory=Counter)
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (queue, outcome): completed, dead, cancelled, retried, snoozed, released or lost."""
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    running: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to claim now: at most so many of each queue, and of all together."""

    limits: dict[str, int]
    total: int


class Roster:
    """Starts handlers as slots come free and hands their verdicts to `settle`.

    `wake` is called when there is room to claim again.
    """

    def __init__(
        self,
        handlers: Handlers,
        concurrency: int,
        *,
        settle: Callable[[Finish | Requeue], None],
        wake: Callable[[], None],
        counts: WorkerCounts,
    ) -> None:
        self.handlers = handlers
        self._concurrency = concurrency
        self._settle = settle
        self._wake = wake
        self._counts = counts
        self._waiting: deque[RunningJob] = deque()
        self._running: dict[UUID, tuple[RunningJob, asyncio.Task[Verdict]]] = {}
        self._held: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="handler")
        self._ended = 0
        self._measured_at = time.monotonic()
        self._prefetch = 0

    def wanted(self, dry: Set[str] = frozenset()) -> Wanted | None:
        """What there is room for, or None while a claim would not be worth its round trip. Queues that are
        `dry` are known to have nothing now."""
        self._measure()
        held = len(self._running) + len(self._waiting)
        room = min(self._concurrency + self._prefetch - held, LARGEST_CLAIM)
        if room < max(1, self._prefetch // 2):
            return None
        limits = {}
        for queue, route in self.handlers.items():
            if queue in dry:
                continue
            limit = room if route.concurrency is None else min(room, route.concurrency - self._held[queue])
            if limit > 0:
                limits[queue] = limit
        return Wanted(limits, min(room, sum(limits.values()))) if limits else None

    def take(self, jobs: Sequence[RunningJob]) -> None:
        """Hold claimed jobs, and start what there are slots for."""
        for job in jobs:
            self._held[job.queue] += 1
            self._counts.claimed[job.queue] += 1
        self._waiting.extend(jobs)
        self._start()

    def running(self) -> dict[UUID, int]:
        """The ids and leases of the jobs whose handlers run."""
        return {job_id: job.lease for job_id, (job, _) in self._running.items()}

    def holds(self) -> set[UUID]:
        """The ids of the jobs that wait for a slot or run."""
        return {*self._running, *(job.id for job in self._waiting)}

    def interrupt(self, job_id: UUID, lease: int, why: Interrupt) -> None:
        """Cancel a handler's task, if it still runs under this lease."""
        job, task = self._running.get(job_id, (None, None))
        if job is not None and task is not None and job.lease == lease:
            job.interrupt(why)
            task.cancel()

    def cancel(self, job_id: UUID) -> None:
        """Somebody asked for this job to stop: cancel its handler, or drop it before it starts."""
        if job_id in self._running:
            self.interrupt(job_id, self._running[job_id][0].lease, Interrupt.CANCEL_ASKED)
        for job in [job for job in self._waiting if job.id == job_id]:
            self._waiting.remove(job)
            error = "cancelled before it started"
            self._release(
                job,
                Finish(
                    id=job.id, lease=job.lease, state=JobState.CANCELLED, error=error, dead_letter_id=job.id
                ),
            )

    def hand_back_waiting(self) -> None:
        """Give back what has not started; it burns no attempt."""
        while self._waiting:
            job = self._waiting.popleft()
            self._release(job, Requeue(id=job.id, lease=job.lease, kind="released"))

    async def empty(self) -> None:
        """Wait until no handler runs."""
        await self._empty.wait()

    async def stop(self, why: Interrupt) -> None:
        """Cancel every handler and wait, within reason, for its end. When the lease is lost, what waits is
        forgotten: it belongs to somebody else."""
        if why is Interrupt.LEASE_LOST:
            self._waiting.clear()
        tasks = [task for _, task in self._running.values()]
        for job_id, lease in self.running().items():
            self.interrupt(job_id, lease, why)
        if tasks:
            _, stubborn = await asyncio.wait(tasks, timeout=STOP_WITHIN)
            for task in stubborn:
                log.error("handler does not stop; its outcome will be refused", task=task.get_name())

    def close(self) -> None:
        """Cancel what still runs because the worker itself was cut, and let the threads go."""
        self._waiting.clear()
        for job_id, lease in self.running().items():
            self.interrupt(job_id, lease, Interrupt.WORKER_STOPS)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._concurrency:
            job = self._waiting.popleft()
            self._counts.running[job.queue] += 1
            self._empty.clear()
            task = asyncio.create_task(
                run(job, self.handlers[job.queue], self._threads, self.handlers.retry_functions),
                name=f"job {job.id}",
            )
            self._running[job.id] = (job, task)
            task.add_done_callback(partial(self._ran, job))

    def _ran(self, job: RunningJob, task: asyncio.Task[Verdict]) -> None:
        # A task that is cancelled before its first step never enters `run`.
        verdict = interrupted(job) if task.cancelled() else task.result()
        del self._running[job.id]
        self._ended += 1
        self._counts.running[job.queue] -= 1
        if job.started:
            self._counts.seconds[job.queue] += time.monotonic() - job.started
        self._release(job, verdict)
        self._start()
        if not self._running:
            self._empty.set()

    def _release(self, job: RunningJob, verdict: Finish | Requeue | None) -> None:
        self._held[job.queue] -= 1
        match verdict:
            case Finish():
                self._counts.ended[job.queue, verdict.state] += 1
                if verdict.state is JobState.DEAD:
                    _tell("job dead", job, verdict)
            case Requeue():
                self._counts.ended[job.queue, verdict.kind] += 1
                if verdict.cause is not None:
                    _tell("attempt failed", job, verdict)
            case None:
                self._counts.ended[job.queue, "completed" if job.settled else "lost"] += 1
        if verdict is not None:
            self._settle(verdict)
        if len(self._running) + len(self._waiting) <= self._concurrency + self._prefetch // 2:
            self._wake()

    def _measure(self) -> None:
        """How many jobs end within PREFETCH_SECONDS, smoothed."""
        now = time.monotonic()
        passed = now - self._measured_at
        if passed >= PREFETCH_SECONDS:
            ended_in_time = self._ended * PREFETCH_SECONDS / passed
            self._prefetch = int((self._prefetch + ended_in_time) / 2)
            self._ended, self._measured_at = 0, now


def _tell(event: str, job: RunningJob, verdict: Finish | Requeue) -> None:
    """One line a failure, with its traceback where the handler raised."""
    log.warning(
        event,
        job=str(job.id),
        queue=job.queue,
        attempt=f"{job.attempt}/{job.max_attempts}",
        error=verdict.error,
        **({} if verdict.traceback is None else {"traceback": verdict.traceback}),
    )
