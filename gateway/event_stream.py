"""EventStream: events to Kafka and Kinesis, put together in code, for an application without a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Self

from ..core.errors import Misconfigured
from ..core.event import Event, EventType, LoggedEvent, LogSink
from ..core.expression import Condition
from ..core.publish.log_relay import LogRelay
from ..core.publish.relay import FILTER_VARIABLES, Subscription
from ..core.queue import Queue
from . import catalog
from .settings.sinks import DEFAULT_EVENTS

STOP_WITHIN = 5.0
"""Seconds for the batches in hand to be sent and noted; what is not is sent again at the next start."""


@dataclass(frozen=True, slots=True)
class EventStream:
    """From the events of a queue's database to logs:

        stream = (
            EventStream()
            .to_kafka("job-events", bootstrap="localhost:9092")
            .to_kinesis("job-stream")
            .with_filter(lambda event: event.queue == "billing")
        )
        await stream.run(queue)

    Every step answers a new EventStream, and it does what a gateway with the same settings would do. Each
    destination has a position of its own under its name, and begins with what happens after it was first run.
    Any number of processes may run the same stream; one of them sends.
    """

    sinks: tuple[tuple[str, LogSink], ...] = ()
    """The destinations, each with its type."""
    events: tuple[str, ...] = DEFAULT_EVENTS
    queues: tuple[str, ...] = ()
    condition: Condition | None = None
    accepts: Callable[[Event | LoggedEvent], bool] | None = None
    source: str = "/hammerwork"

    def to_kafka(self, topic: str, *, bootstrap: str, name: str = "kafka", **options: Any) -> Self:
        """Send to a topic; `options` are those of `[sinks.NAME]` with type kafka."""
        return self._made("kafka", name, {"topic": topic, "bootstrap": bootstrap, **options})

    def to_kinesis(self, stream: str, *, name: str = "kinesis", **options: Any) -> Self:
        """Send to a data stream; `options` are those of `[sinks.NAME]` with type kinesis."""
        return self._made("kinesis", name, {"stream": stream, **options})

    def to_sink(self, sink: LogSink) -> Self:
        """Send to any log sink, one of your own for instance."""
        return self._to(type(sink).__name__, sink)

    def _made(self, kind: str, name: str, options: Mapping[str, Any]) -> Self:
        sink = catalog.sinks.make(kind, name, options)
        assert isinstance(sink, LogSink)
        return self._to(kind, sink)

    def _to(self, kind: str, sink: LogSink) -> Self:
        if sink.name in {known.name for _, known in self.sinks}:
            raise Misconfigured(
                f"two destinations are named {sink.name!r}", hint="give one of them another name: name='…'"
            )
        return replace(self, sinks=(*self.sinks, (kind, sink)))

    def with_events(self, *patterns: str) -> Self:
        """Only these types, or patterns such as `job.*`."""
        return replace(self, events=patterns)

    def with_queues(self, *globs: str) -> Self:
        """Only events of jobs in queues that match one of these."""
        return replace(self, queues=globs)

    def with_filter(self, wanted: str | Callable[[Event | LoggedEvent], bool]) -> Self:
        """Only events for which this is true: a CEL expression over type, queue, job_id, sequence and data,
        or a function of the event. Where it fails the event is sent: better one too many than one lost."""
        if isinstance(wanted, str):
            return replace(self, condition=Condition(wanted, variables=FILTER_VARIABLES))
        return replace(self, accepts=wanted)

    def with_source(self, source: str) -> Self:
        """The `source` of the CloudEvents."""
        return replace(self, source=source)

    def relays(self, queue: Queue) -> list[LogRelay]:
        """The relays, to be run and stopped by the caller. Raises Misconfigured without a destination."""
        if not self.sinks:
            raise Misconfigured("an EventStream needs a destination", hint="call to_kafka() or to_kinesis()")
        return [
            LogRelay(queue.database, self._subscription(sink.name), sink, kind=kind)
            for kind, sink in self.sinks
        ]

    async def run(self, queue: Queue) -> None:
        """Send until the task is cancelled; then what is in hand is sent and noted, or comes again. Cancelled
        a second time it does not wait for that."""
        relays = self.relays(queue)
        tasks = [asyncio.create_task(r.run(), name=f"relay {r.subscription.name}") for r in relays]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for relay in relays:
                relay.stop()
            try:
                await asyncio.wait(tasks, timeout=STOP_WITHIN)
            finally:
                for task in tasks:
                    task.cancel()
                # However often we are cancelled, this ends when all of them have.
                ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    def _subscription(self, name: str) -> Subscription:
        return Subscription(
            name=name,
            types=frozenset(t for t in EventType if any(fnmatchcase(t, p) for p in self.events)),
            queues=self.queues,
            condition=self.condition,
            accepts=self.accepts,
            source=self.source,
            from_log=True,
        )
