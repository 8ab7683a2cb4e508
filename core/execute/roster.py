"""The jobs that a worker holds: those that wait for a slot and those whose handlers run."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from ..job import JobState, Priority
from ..postgres.store import Completion, Finish, Requeue, Verdict
from .execution import run
from .handlers import Handlers
from .running import Interrupt, RunningJob

log = structlog.get_logger(__name__)

PREFETCH_SECONDS = 0.05
"""A worker claims what it will start within this time beyond its free slots: short jobs then do not wait
for round trips, and long jobs are not held back from idle workers."""

MEASURE_SECONDS = 0.01
"""How often that is measured anew: a worker that starts beside a full queue is at full speed after a few."""

LARGEST_CLAIM = 1000

LOOKED_AT = 2
"""A claim over many queues looks at so many times the jobs that it may take."""

STOP_WITHIN = 5.0
"""Seconds that a cancelled handler has to end; one that does not is left behind, fenced."""


@dataclass(slots=True)
class WorkerCounts:
    """What a worker has done since it started; read for metrics."""

    claimed: Counter[str] = field(default_factory=Counter)
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (queue, outcome): completed, dead, cancelled, retried, snoozed, released or lost."""
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    running: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to claim now: at most so many of each queue, and of all together.

    `share` bounds what is looked at of one queue and priority (but for the urgent ones) where there are many
    queues: every row that is looked at is locked, whether it is taken or not.
    """

    limits: dict[str, int]
    total: int
    share: int

    def slots(self, queue: str, priority: int) -> int:
        """How many jobs of this queue and priority are looked at."""
        limit = self.limits[queue]
        return limit if priority > Priority.NORMAL else min(limit, self.share)

    def exhausted(self, found: Mapping[str, int]) -> set[str]:
        """The queues of which a claim that was not filled brought less than was asked for."""
        return {queue for queue in self.limits if found.get(queue, 0) < self.slots(queue, Priority.NORMAL)}


class Roster:
    """Starts handlers as slots come free and hands their verdicts to `settle`.

    `wake` is called when there is room to claim again.
    """

    def __init__(
        self,
        handlers: Handlers,
        concurrency: int,
        *,
        settle: Callable[[Verdict], None],
        wake: Callable[[], None],
        counts: WorkerCounts,
    ) -> None:
        self.handlers = handlers
        self._concurrency = concurrency
        self._settle = settle
        self._wake = wake
        self._counts = counts
        self._waiting: deque[RunningJob] = deque()
        self._running: set[RunningJob] = set()
        self._held: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="handler")
        self._ends = 0
        self._spent = 0.0
        self._measured_at = time.monotonic()
        self._prefetch = 0

    def wanted(self, dry: Set[str] = frozenset()) -> Wanted | None:
        """What there is room for, or None while a claim would not be worth its round trip. Queues that are
        `dry` are known to have nothing now."""
        self._measure()
        held = len(self._running) + len(self._waiting)
        room = min(self._concurrency + self._prefetch - held, LARGEST_CLAIM)
        if room < max(1, min(self._prefetch, LARGEST_CLAIM) // 2):
            return None
        limits = {}
        for queue, route in self.handlers.items():
            if queue in dry:
                continue
            limit = room if route.concurrency is None else min(room, route.concurrency - self._held[queue])
            if limit > 0:
                limits[queue] = limit
        if not limits:
            return None
        share = max(1, LOOKED_AT * room // len(limits))
        return Wanted(limits, total=min(room, sum(limits.values())), share=share)

    def take(self, jobs: Sequence[RunningJob]) -> None:
        """Hold claimed jobs, and start what there are slots for."""
        for queue, count in Counter(job.queue for job in jobs).items():
            self._held[queue] += count
            self._counts.claimed[queue] += count
        self._waiting.extend(jobs)
        self._start()

    def running(self) -> dict[UUID, int]:
        """The ids and leases of the jobs whose handlers run."""
        return {job.id: job.lease for job in self._running}

    def holds(self) -> set[UUID]:
        """The ids of the jobs that wait for a slot or run."""
        return {job.id for job in (*self._running, *self._waiting)}

    def interrupt(self, job_id: UUID, lease: int, why: Interrupt) -> None:
        """Cancel a handler's task, if it still runs under this lease."""
        for job in self._running:
            if job.id == job_id and job.lease == lease:
                self._interrupt(job, why)

    def cancel(self, job_id: UUID) -> None:
        """Somebody asked for this job to stop: cancel its handler, or drop it before it starts."""
        for job in self._running:
            if job.id == job_id:
                self._interrupt(job, Interrupt.CANCEL_ASKED)
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
        running = {job.task: job for job in self._running if job.task is not None}
        for job in running.values():
            self._interrupt(job, why)
        if running:
            _, stubborn = await asyncio.wait(running, timeout=STOP_WITHIN)
            for task in stubborn:
                log.error("handler does not stop; its outcome will be refused", job=str(running[task].id))

    def close(self) -> None:
        """Cancel what still runs because the worker itself was cut, and let the threads go."""
        self._waiting.clear()
        for job in self._running:
            self._interrupt(job, Interrupt.WORKER_STOPS)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        functions = self.handlers.retry_functions
        while self._waiting and len(self._running) < self._concurrency:
            if not self._running:
                self._empty.clear()
            job = self._waiting.popleft()
            self._running.add(job)
            self._counts.running[job.queue] += 1
            # Without a name, which would cost a seventh of the start: what tells of a job tells its id.
            job.task = self._loop.create_task(
                run(job, self.handlers[job.queue], self._threads, functions, self._ended)
            )

    def _ended(self, job: RunningJob, verdict: Verdict | None) -> None:
        self._running.remove(job)
        self._ends += 1
        self._counts.running[job.queue] -= 1
        if job.started:
            seconds = time.monotonic() - job.started
            self._counts.seconds[job.queue] += seconds
            self._spent += seconds
        self._release(job, verdict)
        self._start()
        if not self._running:
            self._empty.set()

    @staticmethod
    def _interrupt(job: RunningJob, why: Interrupt) -> None:
        job.interrupt(why)
        # A task that is cancelled before its first step never runs; this one then sees the word itself.
        if job.started and job.task is not None:
            job.task.cancel()

    def _release(self, job: RunningJob, verdict: Verdict | None) -> None:
        self._held[job.queue] -= 1
        match verdict:
            case Completion():
                self._counts.ended[job.queue, "completed"] += 1
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
        """How many jobs end within PREFETCH_SECONDS: believed at once when it rises, half when it falls.
        None where they take longer than that, however many end together."""
        now = time.monotonic()
        passed = now - self._measured_at
        if passed >= MEASURE_SECONDS:
            short = self._spent <= self._ends * PREFETCH_SECONDS
            ended_in_time = int(self._ends * PREFETCH_SECONDS / passed) if short else 0
            self._prefetch = max(ended_in_time, (self._prefetch + ended_in_time) // 2)
            self._ends, self._spent, self._measured_at = 0, 0.0, now


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
