"""SinkTrial: what one test of a sink has in hand: its sinks, events, and the deliveries of a gateway."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from ...core.event import DeliveryAttempt, DeliveryReport, Event, EventType, Sink
from ...core.execute.worker import Worker
from ...core.identity import new_id
from ...core.job import Job, Json, Outcome, Retry
from ...core.publish.deliver import DeliveryPolicy, delivery_handlers
from ...core.publish.delivery_log import DeliveryLog
from ...core.publish.relay import Relay, Subscription
from ...core.retry import Fixed
from .harness import Received, SinkHarness
from .place import SinkPlace, begun

CONCURRENCY = 4
AT_ONCE = DeliveryPolicy(retry=Fixed(timedelta(0)), max_attempts=50, concurrency=CONCURRENCY)
SOON = timedelta(milliseconds=50)


class SinkTrial(SinkPlace[Sink]):
    """Events are delivered to it one by one."""

    @property
    def subscription(self) -> Subscription:
        wanted = frozenset({EventType.ENQUEUED})
        return Subscription(name=self.name, types=wanted, queues=(self.name,), max_attempts=50)

    # --- one event ---

    def event(self, note: Json = None) -> Mapping[str, Json]:
        """A CloudEvent about a job that nobody knows."""
        event = Event(
            id=new_id(), type=EventType.COMPLETED, job_id=new_id(), sequence=3, queue="billing",
            at=datetime(2026, 11, 24, 12, 30, tzinfo=UTC), data={"note": note},
        )  # fmt: skip
        return event.cloud_event("/conformance")

    async def report(self, sink: Sink, event: Mapping[str, Json], attempt: int = 1) -> DeliveryReport:
        """What comes of one try; what it raises counts as Retry, as it does in a gateway."""
        try:
            return await sink.deliver(
                DeliveryAttempt(event_id=str(event["id"]), cloud_event=event, attempt=attempt)
            )
        except Exception as error:
            return DeliveryReport(outcome=Retry(f"{type(error).__name__}: {error}"))

    async def outcome(self, sink: Sink, event: Mapping[str, Json], attempt: int = 1) -> Outcome:
        return (await self.report(sink, event, attempt)).outcome

    async def received_of(self, event: Mapping[str, Json]) -> list[Received]:
        """The arrivals of this event, told by the job that it is about."""
        job_id = event["data"]["job_id"]
        return [got for got in await self.harness.received() if _job_of(got) == job_id]

    # --- events of jobs, delivered as a gateway does ---

    async def enqueue(self, count: int) -> list[str]:
        """That many jobs, of each of which the sink is to hear; their ids."""
        jobs = [Job(self.name, {"n": n}) for n in range(count)]
        await self._queue.enqueue_many(jobs)
        return [str(job.id) for job in jobs]

    @asynccontextmanager
    async def delivering(self, *, cut: bool = False) -> AsyncIterator[None]:
        """Relay and deliver until the block ends; then stop in good order, or with `cut` on the spot."""
        sink, database = await self.opened(), self._queue.database
        log = DeliveryLog(database, self.name, disable_after=AT_ONCE.disable_after)
        worker = Worker(
            self._queue, delivery_handlers(log, sink, AT_ONCE), concurrency=CONCURRENCY, poll=SOON,
            lease=timedelta(seconds=1), upkeep=True,
        )  # fmt: skip
        relay = Relay(database, self.subscription, kind=self.kind)
        parts = [asyncio.create_task(part.run(), name=type(part).__name__) for part in (worker, relay, log)]
        try:
            yield
        finally:
            if not cut:
                worker.stop()
                await asyncio.wait(parts[:1], timeout=self.harness.patience)
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await sink.close()

    async def arrivals(self) -> Counter[str]:
        """How often an event about each job of this trial has arrived."""
        events = await self.harness.received()
        return Counter(str(_job_of(got)) for got in events if got.event["data"].get("queue") == self.name)

    async def all_arrived(self, jobs: Sequence[str]) -> None:
        """Wait until an event about each of these jobs has."""

        async def complete() -> bool:
            return set(jobs) <= set(await self.arrivals())

        await self.until(complete, f"{len(jobs)} events arrive")


def _job_of(received: Received) -> Json:
    return received.event["data"]["job_id"]


def sink_trial(
    plugin: Any, kind: str, harness: SinkHarness, dsn: str
) -> AbstractAsyncContextManager[SinkTrial]:
    """As `begun`."""
    return begun(SinkTrial, plugin, kind, harness, dsn)
