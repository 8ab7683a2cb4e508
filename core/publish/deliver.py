"""Deliveries: the jobs of a sink's queue, each one event to one destination, logged and judged."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta

import structlog

from ..event import DeliveryAttempt, DeliveryReport, Sink
from ..execute.handlers import Handlers
from ..execute.running import RunningJob
from ..job import SINK_QUEUE_PREFIX, Outcome, Retry
from ..retry import RetryStrategy, Schedule, delay_after
from .delivery_log import DeliveryLog, word_for

log = structlog.get_logger(__name__)

STANDARD_SCHEDULE = Schedule(
    delays=tuple(
        timedelta(seconds=seconds) for seconds in (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
    )
)
"""When a delivery is tried again: the schedule that the Standard Webhooks specification recommends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    """How a sink's deliveries are tried again, and when the sink is given up.

    `disable_after`: a sink of which nothing was taken for so long is disabled, with an operator event,
    until somebody resumes it. `concurrency` is for a worker of the sink's own, so that a slow destination
    delays only itself.
    """

    retry: RetryStrategy = STANDARD_SCHEDULE
    max_attempts: int = len(STANDARD_SCHEDULE.delays) + 1
    concurrency: int = 10
    disable_after: timedelta = timedelta(days=5)


def delivery_handlers(deliveries: DeliveryLog, sink: Sink, policy: DeliveryPolicy) -> Handlers:
    """The handlers of a sink's queue, for a Worker of its own; `deliveries` must be running beside it."""
    # Bound once, when logging is set up: looking the logger up costs a fifth of a line.
    line = log.bind(sink=sink.name)

    async def deliver(job: RunningJob) -> Outcome:
        event = job.payload
        event_id = str(event["id"])
        started = time.monotonic()
        try:
            report = await sink.deliver(
                DeliveryAttempt(
                    event_id=event_id, cloud_event=event, attempt=job.attempt, text=job.payload_text
                )
            )
        except Exception as error:
            # The sink's own fault: it is tried again and logged like any other try that failed.
            line.exception("sink failed", event_id=event_id)
            report = DeliveryReport(outcome=Retry(f"{type(error).__name__}: {error}"), error="sink_failed")
        seconds = time.monotonic() - started
        line.info(
            "delivery", event_id=event_id, type=event.get("type"), job=str(job.id),
            attempt=job.attempt, outcome=word_for(report.outcome), status=report.status, error=report.error,
            ms=round(seconds * 1000, 1),
        )  # fmt: skip
        await deliveries.write(job, event_id, report, seconds)
        return _not_sooner(report.outcome, policy, job.attempt)

    handlers = Handlers()
    handlers.add(SINK_QUEUE_PREFIX + sink.name, deliver, retry=policy.retry)
    return handlers


def _not_sooner(outcome: Outcome, policy: DeliveryPolicy, attempt: int) -> Outcome:
    """A destination may ask for more time than the schedule gives, not for less: `Retry-After: 1` at every
    try would burn all of them in seconds."""
    match outcome:
        case Retry(reason=reason, delay=timedelta() as asked):
            return Retry(reason, max(asked, delay_after(policy.retry, attempt)))
        case _:
            return outcome
