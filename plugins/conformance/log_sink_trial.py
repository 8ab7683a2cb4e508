"""LogSinkTrial: what one test of a log sink has in hand: its sinks, events, and relays to them."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from ...core.errors import Disconnected, Misconfigured
from ...core.event import EventType, LoggedEvent, LogSink, SharedLogSink
from ...core.execute.handlers import Handlers
from ...core.execute.running import RunningJob
from ...core.execute.worker import Worker
from ...core.identity import new_id
from ...core.job import Dead, Done, Job, Json, Outcome, Retry
from ...core.message import Guarantee
from ...core.publish.log_relay import LogRelay
from ...core.publish.relay import Subscription
from ...core.queue import Queue
from .harness import Received, SinkHarness
from .place import SinkPlace, begun

BATCH = 20
TYPES = (EventType.ENQUEUED, EventType.STARTED, EventType.COMPLETED)
BEGAN = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)


class Watched:
    """A log sink as its relay sees it, of which some answers are lost after the sink has sent, or one never
    comes, as where a gateway dies; counted from 1."""

    def __init__(self, sink: LogSink, *, lost: Collection[int] = (), frozen: int | None = None) -> None:
        self.name = sink.name
        self.hit = False
        """Whether the answer that never comes is due."""
        self.unanswered: set[str] = set()
        """The events of sends of which the relay heard nothing."""
        self._sink = sink
        self._lost = lost
        self._frozen = frozen
        self._sends = 0

    async def is_hit(self) -> bool:
        return self.hit

    def belong_to(self, deployment: str) -> None:
        if isinstance(self._sink, SharedLogSink):
            self._sink.belong_to(deployment)

    async def open(self) -> str | None:
        return await self._sink.open()

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        outcomes = await self._sink.send(events, mark)
        self._sends += 1
        if self._sends == self._frozen:
            self._note(events)
            self.hit = True
            await asyncio.Event().wait()
        if self._sends in self._lost:
            self._note(events)
            raise Disconnected("the conformance kit has lost the answer")
        return outcomes

    async def close(self) -> None:
        await self._sink.close()

    async def guarantee(self) -> Guarantee:
        return await self._sink.guarantee()

    def _note(self, events: Sequence[LoggedEvent]) -> None:
        self.unanswered |= {str(event.id) for event in events}


class LogSinkTrial(SinkPlace[LogSink]):
    """Events are sent to it in batches."""

    def __init__(self, plugin: Any, kind: str, harness: SinkHarness, queue: Queue) -> None:
        super().__init__(plugin, kind, harness, queue)
        self._numbers = itertools.count(1)
        self._jobs = 0

    @property
    def subscription(self) -> Subscription:
        return Subscription(name=self.name, types=frozenset(TYPES), queues=(self.name,), from_log=True)

    # --- events by hand ---

    def events(self, jobs: int, each: int, note: Json = "naïve ✓") -> list[LoggedEvent]:
        """So many events of so many jobs that nobody knows, interleaved."""
        ids = [new_id() for _ in range(jobs)]
        return [self.event(job, sequence, note) for sequence in range(1, each + 1) for job in ids]

    def event(self, job: UUID | None = None, sequence: int = 1, note: Json = None) -> LoggedEvent:
        """One event, behind all that were made before."""
        number = next(self._numbers)
        return LoggedEvent(
            log_id=number, xid=str(700 + number), id=new_id(), job_id=job or new_id(), sequence=sequence,
            type=EventType.COMPLETED, queue=self.name, text=json.dumps({"note": note}, ensure_ascii=False),
            at=BEGAN + timedelta(milliseconds=number), again=False, source="/conformance",
        )  # fmt: skip

    def mark(self) -> str:
        """A place in the log behind all events that were made."""
        return f"{700 + next(self._numbers)}:0:conformance"

    async def send(
        self, sink: LogSink, events: Sequence[LoggedEvent], mark: str | None = None
    ) -> Sequence[Outcome]:
        """One send. Fails the test where there is not one outcome an event."""
        outcomes = await sink.send(events, mark or self.mark())
        assert len(outcomes) == len(events), f"{len(outcomes)} outcomes of {len(events)} events"
        return outcomes

    async def send_all(self, sink: LogSink, events: Sequence[LoggedEvent]) -> dict[UUID, Outcome]:
        """As a relay does: again and again, first what was not taken, opened anew where it is lost; what
        became of each event."""
        pending, found = list(events), dict[UUID, Outcome]()
        deadline = time.monotonic() + self.harness.patience
        while pending:
            if time.monotonic() > deadline:
                pytest.fail(f"{len(pending)} of {len(events)} events are not taken: {found[pending[0].id]}")
            outcomes = await self.tried(sink, pending)
            found |= {event.id: outcome for event, outcome in zip(pending, outcomes, strict=True)}
            pending = [event for event in pending if not isinstance(found[event.id], Done | Dead)]
            await asyncio.sleep(0.02 if pending else 0)
        return found

    async def tried(self, sink: LogSink, events: Sequence[LoggedEvent]) -> Sequence[Outcome]:
        """One send as a relay makes it. Where the sink is lost by it: opened anew, and nothing is done."""
        try:
            async with asyncio.timeout(self.harness.answers_within):
                return await self.send(sink, events)
        except (Misconfigured, AssertionError):
            raise
        except Exception as error:
            await sink.close()
            await self.reopened(sink)
            return [Retry(f"{type(error).__name__}: {error}")] * len(events)

    async def reopened(self, sink: LogSink) -> None:
        """Open it until that succeeds."""

        async def opens() -> bool:
            try:
                await sink.open()
            except Disconnected:
                await sink.close()
                return False
            return True

        await self.until(opens, "the sink opens again")

    async def opened(self) -> LogSink:
        sink = self.sink()
        await self._open(sink)
        return sink

    async def _open(self, sink: LogSink) -> str | None:
        """As a relay does it, which tells the sink first whose it is."""
        if isinstance(sink, SharedLogSink):
            (row,) = await self._queue.database.fetch("look_at_sink", self.name)
            sink.belong_to(row["deployment"])
        return await sink.open()

    async def keeps_position(self) -> bool:
        """Whether the sink tells, when it is opened, where it is in the log."""
        sink = self.sink()
        mark = await self._open(sink)
        await sink.close()
        return mark is not None

    async def arrived(self, events: Sequence[LoggedEvent]) -> list[Received]:
        """The arrivals of these events, in their order."""
        ids = {str(event.id) for event in events}
        return [got for got in await self.harness.received() if got.event["id"] in ids]

    # --- events of jobs, relayed as a gateway does ---

    async def run_jobs(self, count: int) -> set[str]:
        """Run that many jobs more, of which the log tells three events each; the ids of all events so far."""
        handlers = Handlers()

        @handlers.queue(self.name)
        async def handle(job: RunningJob) -> None:
            return

        self._jobs += count
        await self._queue.enqueue_many([Job(self.name, {"n": n}) for n in range(count)])
        worker = Worker(self._queue, handlers, concurrency=10, poll=timedelta(milliseconds=20))
        working = asyncio.create_task(worker.run(), name="worker")
        found: set[str] = set()

        async def all_told() -> bool:
            found.update(await self._told())
            return len(found) == len(TYPES) * self._jobs

        try:
            await self.until(all_told, "the jobs of the test are run")
        finally:
            worker.stop()
            await asyncio.wait([working], timeout=self.harness.patience)
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        return found

    async def _told(self) -> list[str]:
        async with self._queue.database.transaction() as connection:
            query = "select event_id::text from hammerwork.events where queue = $1"
            return [row["event_id"] for row in await connection.fetch(query, self.name)]

    @asynccontextmanager
    async def relaying(self, sink: LogSink, *, cut: bool = False) -> AsyncIterator[None]:
        """Relay until the block ends; then stop in good order, or with `cut` on the spot."""
        relay = LogRelay(self._queue.database, self.subscription, sink, kind=self.kind, batch=BATCH)
        task = asyncio.create_task(relay.run(), name="relay")
        try:
            yield
        finally:
            if not cut:
                relay.stop()
                await asyncio.wait([task], timeout=self.harness.patience)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def all_arrived(self, events: Collection[str]) -> None:
        """Wait until each of these has."""

        async def complete() -> bool:
            return set(events) <= set(await self.arrivals())

        await self.until(complete, f"{len(events)} events arrive")

    async def has_begun(self) -> bool:
        """Whether anything has arrived."""
        return bool(await self.harness.received())

    async def arrivals(self) -> Counter[str]:
        """How often each event has arrived."""
        return Counter(str(got.event["id"]) for got in await self.harness.received())


def assert_in_order(arrived: Sequence[Received]) -> None:
    """Fails the test where the events of a job were seen for the first time in another order than theirs."""
    seen: dict[Json, list[str]] = {}
    for got in arrived:
        mine = seen.setdefault(got.event["data"]["job_id"], [])
        if got.event["sequence"] not in mine:
            mine.append(got.event["sequence"])
    for job, sequences in seen.items():
        assert sequences == sorted(sequences), f"the events of job {job} are out of order: {sequences}"


def log_sink_trial(
    plugin: Any, kind: str, harness: SinkHarness, dsn: str
) -> AbstractAsyncContextManager[LogSinkTrial]:
    """As `begun`."""
    return begun(LogSinkTrial, plugin, kind, harness, dsn)
