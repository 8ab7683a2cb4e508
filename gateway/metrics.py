"""What Prometheus is told of the gateway.

The metrics (all have the prefix `hammerwork_`; counters end in `_total`):

| name | labels | meaning |
|---|---|---|
| bridge_messages_total | bridge, fate | what became of messages: stored, duplicate, filtered |
| bridge_dead_letters_total | bridge, reason | messages that became dead letters |
| bridge_batches_total | bridge | transactions of an intake |
| bridge_batch_seconds_total | bridge | time from a pull to its settling, summed |
| bridge_reconnects_total | bridge | sessions with the broker that ended early |
| bridge_stalls_total | bridge | times that nothing moved although messages waited, and it was opened anew |
| bridge_lag | bridge | messages that wait at the broker, where it tells |
| bridge_up | bridge | 1 while the bridge is running or paused, 0 while it is held or starting |
| bridge_paused | bridge | 1 while it holds back: an operator, the circuit or the depth of its queues say so |
| bridge_progress_timestamp_seconds | bridge | Unix time of the last batch; 0: none yet |
| sink_events_total | sink | events that its relay has read |
| sink_deliveries_enqueued_total | sink | deliveries that its relay has made |
| sink_events_taken_total | sink | events that a sink which reads the log has taken |
| sink_dead_letters_total | sink | events that such a sink refused for ever |
| sink_retries_total | sink | events that it did not take at once, by try |
| sink_reopened_total | sink | how often it was closed because it failed or did not answer |
| sink_lag_seconds | sink | age of what this process is handing over; 0 when it has caught up |
| sink_up | sink | 1 while its relay is running |
| jobs_claimed_total | queue | jobs that this process's workers claimed |
| jobs_ended_total | queue, outcome | completed, dead, cancelled, retried, snoozed, released, lost |
| job_seconds_total | queue | time in handlers, summed |
| jobs_running | queue | handlers that run now |
| queue_jobs | queue, state | live jobs in the database, as read at most every 5 s |
| queue_oldest_seconds | queue | how long the job that is next in time has waited |
| queue_paused | queue | 1 while the queue is paused |
| queue_stats_timestamp_seconds | | Unix time of that reading; 0: none yet |
| notifications_heard | | 1 while LISTEN works, 0 while workers only poll |
| build_info | version | always 1 |

Python's own process and memory metrics stand beside them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..core.errors import HammerworkError
from ..core.execute.roster import WorkerCounts
from ..core.execute.worker import Worker
from ..core.ingest.intake import Intake
from ..core.postgres.notifier import Notifier
from ..core.publish.log_relay import LogRelay
from ..core.publish.relay import Relay
from ..core.queue import Queue, QueueStats
from ..core.status import Status

STATS_EVERY = 5.0
"""Seconds for which one reading of the queues serves every scrape."""


class QueueSurvey:
    """The state of the queues in the database, read at most every 5 seconds however many ask."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._reading = asyncio.Lock()
        self._read_at = 0.0
        self.stats: Sequence[QueueStats] = ()
        self.at = 0.0
        """Unix seconds of the last reading that worked; 0: none yet."""

    async def refresh(self) -> None:
        """Read again if the last reading is old. While Postgres is away the old numbers stay."""
        async with self._reading:
            if self._read_at and time.monotonic() - self._read_at < STATS_EVERY:
                return
            self._read_at = time.monotonic()
            try:
                async with asyncio.timeout(STATS_EVERY):
                    self.stats = await self._queue.stats()
            except (HammerworkError, TimeoutError):
                return
            self.at = time.time()


class GatewayCollector(Collector):
    """Reads the counts of the running parts when Prometheus asks; nothing is counted twice."""

    def __init__(
        self,
        *,
        version: str,
        intakes: Mapping[str, Intake],
        relays: Mapping[str, Relay | LogRelay],
        workers: Sequence[Worker],
        notifier: Notifier,
        survey: QueueSurvey,
    ) -> None:
        self._version = version
        self._intakes = intakes
        self._relays = relays
        self._workers = workers
        self._notifier = notifier
        self._survey = survey

    def collect(self) -> Iterable[Metric]:
        yield from self._bridges()
        yield from self._sinks()
        yield from self._jobs()
        yield from self._queues()
        heard = float(self._notifier.hears)
        yield _gauge("notifications_heard", "LISTEN works", (), [((), heard)])
        yield _gauge("build_info", "The running version", ("version",), [((self._version,), 1.0)])

    def _bridges(self) -> Iterator[Metric]:
        counts = {name: intake.counts for name, intake in self._intakes.items()}
        yield _counter(
            "bridge_messages",
            "Messages by what became of them",
            ("bridge", "fate"),
            [
                ((name, fate), value)
                for name, c in counts.items()
                for fate, value in (
                    ("stored", c.stored), ("duplicate", c.duplicates), ("filtered", c.filtered)
                )
            ],
        )  # fmt: skip
        letters = [((n, reason), v) for n, c in counts.items() for reason, v in c.dead_lettered.items()]
        yield _counter("bridge_dead_letters", "Dead letters by reason", ("bridge", "reason"), letters)
        batches = [((name,), c.batches) for name, c in counts.items()]
        yield _counter("bridge_batches", "Transactions of the intake", ("bridge",), batches)
        seconds = [((name,), c.seconds) for name, c in counts.items()]
        yield _counter("bridge_batch_seconds", "Time from pull to settling", ("bridge",), seconds)
        reconnects = [((name,), c.reconnects) for name, c in counts.items()]
        yield _counter("bridge_reconnects", "Broker sessions ended early", ("bridge",), reconnects)
        stalls = [((name,), c.stalls) for name, c in counts.items()]
        yield _counter("bridge_stalls", "Sessions that were stuck", ("bridge",), stalls)
        lags = [((name,), c.lag) for name, c in counts.items() if c.lag is not None]
        yield _gauge("bridge_lag", "Messages that wait at the broker", ("bridge",), lags)
        statuses = {name: intake.status for name, intake in self._intakes.items()}
        yield _gauge("bridge_up", "The bridge is running or paused", ("bridge",), _up(statuses))
        paused = [((name,), float(status.state == "paused")) for name, status in statuses.items()]
        yield _gauge("bridge_paused", "The bridge holds back", ("bridge",), paused)
        progress = [((name,), status.progress_at) for name, status in statuses.items()]
        yield _gauge("bridge_progress_timestamp_seconds", "Time of the last batch", ("bridge",), progress)

    def _sinks(self) -> Iterator[Metric]:
        relays = self._relays
        events = [((name,), relay.counts.events) for name, relay in relays.items()]
        yield _counter("sink_events", "Events read for the sink", ("sink",), events)
        deliveries = [
            ((name,), relay.counts.deliveries) for name, relay in relays.items() if isinstance(relay, Relay)
        ]
        yield _counter("sink_deliveries_enqueued", "Deliveries made for the sink", ("sink",), deliveries)
        logs = {name: relay.counts for name, relay in relays.items() if isinstance(relay, LogRelay)}
        taken = [((name,), counts.taken) for name, counts in logs.items()]
        yield _counter("sink_events_taken", "Events that the sink has taken", ("sink",), taken)
        dead = [((name,), counts.dead) for name, counts in logs.items()]
        yield _counter("sink_dead_letters", "Events that the sink refused for ever", ("sink",), dead)
        retries = [((name,), counts.retried) for name, counts in logs.items()]
        yield _counter("sink_retries", "Events that were not taken at once", ("sink",), retries)
        reopened = [((name,), counts.reopened) for name, counts in logs.items()]
        yield _counter("sink_reopened", "Times that the sink was closed for a fault", ("sink",), reopened)
        lag = [((name,), relay.lag) for name, relay in relays.items()]
        yield _gauge("sink_lag_seconds", "Age of what is being handed over", ("sink",), lag)
        up = _up({name: relay.status for name, relay in relays.items()})
        yield _gauge("sink_up", "The sink's relay is running", ("sink",), up)

    def _jobs(self) -> Iterator[Metric]:
        total = WorkerCounts()
        for worker in self._workers:
            total.claimed.update(worker.counts.claimed)
            total.ended.update(worker.counts.ended)
            total.running.update(worker.counts.running)
            for queue, spent in worker.counts.seconds.items():
                total.seconds[queue] += spent
        claimed = [((queue,), value) for queue, value in total.claimed.items()]
        yield _counter("jobs_claimed", "Jobs claimed by this process", ("queue",), claimed)
        ended = [((queue, str(outcome)), value) for (queue, outcome), value in total.ended.items()]
        yield _counter("jobs_ended", "Attempts ended, by outcome", ("queue", "outcome"), ended)
        seconds = [((queue,), value) for queue, value in total.seconds.items()]
        yield _counter("job_seconds", "Time in handlers", ("queue",), seconds)
        running = [((queue,), value) for queue, value in total.running.items()]
        yield _gauge("jobs_running", "Handlers that run now", ("queue",), running)

    def _queues(self) -> Iterator[Metric]:
        stats = self._survey.stats
        jobs = [
            ((s.queue, state), value)
            for s in stats
            for state, value in (
                ("available", s.available), ("scheduled", s.scheduled),
                ("blocked", s.blocked), ("running", s.running),
            )
        ]  # fmt: skip
        yield _gauge("queue_jobs", "Live jobs in the database", ("queue", "state"), jobs)
        oldest = [((s.queue,), s.oldest.total_seconds() if s.oldest else 0.0) for s in stats]
        yield _gauge("queue_oldest_seconds", "Wait of the next job", ("queue",), oldest)
        paused = [((s.queue,), float(s.paused_at is not None)) for s in stats]
        yield _gauge("queue_paused", "The queue is paused", ("queue",), paused)
        yield _gauge("queue_stats_timestamp_seconds", "Time of this reading", (), [((), self._survey.at)])


def new_registry(collector: Collector) -> CollectorRegistry:
    """A registry of its own: two gateways in one process must not meet in a global one."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(collector)
    return registry


Sample = tuple[tuple[str, ...], float]


def _counter(name: str, text: str, labels: tuple[str, ...], samples: Iterable[Sample]) -> Metric:
    family = CounterMetricFamily(f"hammerwork_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Iterable[Sample]) -> Metric:
    family = GaugeMetricFamily(f"hammerwork_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _up(statuses: Mapping[str, Status]) -> list[Sample]:
    return [((name,), float(status.state in ("running", "paused"))) for name, status in statuses.items()]
