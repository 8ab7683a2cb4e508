"""The parameters of the operations, by what they speak about."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field

from ...core.job import JobState
from .operation import Params
from .shapes import CorrelationId, NoNul, QueueName, Span

Limit = Annotated[int, Field(ge=1, le=200)]


class NoParams(Params):
    """Nothing to say."""


class Keyed(Params):
    """How a request is told from its repetition."""

    idempotency_key: NoNul | None = Field(
        None,
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="the same key and body again get the first answer; it is kept for 30 days",
    )


class OneJob(Params):
    id: UUID


class JobResult(OneJob):
    wait: Annotated[Span | None, Field(description="for the job to finish, at most 60s")] = None


class JobFilter(Params):
    queue: QueueName | None = None
    state: JobState | None = None
    correlation_id: CorrelationId | None = None
    limit: Limit = 50
    cursor: UUID | None = None


class OneQueue(Params):
    queue: QueueName


class OneBridge(Params):
    bridge: QueueName


class DeadLetterFilter(Params):
    bridge: NoNul | None = None
    queue: QueueName | None = None
    reason: NoNul | None = None
    closed: bool = Field(False, description="also those that were replayed or discarded")
    limit: Limit = 50
    cursor: UUID | None = None


class OneDeadLetter(Params):
    id: UUID


class OneSink(Params):
    sink: QueueName


class DeliveryFilter(OneSink):
    failed: bool = False
    limit: Limit = 50
