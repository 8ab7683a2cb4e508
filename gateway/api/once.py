"""Enqueue under an Idempotency-Key: however often a request is sent, its jobs exist once."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from uuid import UUID

from ...core.errors import BadMessage
from ...core.postgres.database import Connection, Record, statement
from ...core.queue import Enqueued, Queue
from .shapes import EnqueuedReply, JobRequest, JobsRequest

INBOX = "gateway.api"
"""Under which name keys lie in the inbox, for its 30 days. The dot keeps it apart from configured bridges."""


class _Raced(Exception):
    """The same key was stored by another request meanwhile; this transaction is rolled back."""


async def enqueue(queue: Queue, requests: Sequence[JobRequest], key: str | None) -> list[EnqueuedReply]:
    """Store the jobs; with a key, the same request again gets the answer of the first.

    The key and the jobs commit together. Raises BadMessage("idempotency_key_reused") when the key came
    with other jobs before.
    """
    if key is None:
        jobs = [request.job() for request in requests]
        outcomes = await queue.enqueue_many(jobs)
        return [EnqueuedReply(id=j.id, outcome=o) for j, o in zip(jobs, outcomes, strict=True)]
    rows = [f"{key} {number}" for number in range(len(requests))]
    digest = _digest(requests)
    while True:
        try:
            async with queue.database.transaction() as connection:
                known = await connection.fetch(statement("inbox_known"), INBOX, rows)
                if known:
                    return _first_answer(known, rows, requests, digest)
                return await _store(queue, connection, requests, rows, digest)
        except _Raced:
            continue


async def _store(
    queue: Queue, connection: Connection, requests: Sequence[JobRequest], rows: list[str], digest: bytes
) -> list[EnqueuedReply]:
    jobs = [request.job() for request in requests]
    outcomes = await queue.enqueue_many(jobs, conn=connection)
    replies = [EnqueuedReply(id=j.id, outcome=o) for j, o in zip(jobs, outcomes, strict=True)]
    # A duplicate's id is in the request itself, so that a row without one can say `duplicate` again.
    ids = [reply.id if reply.outcome is Enqueued.STORED else None for reply in replies]
    new = await connection.fetch(statement("inbox_insert"), INBOX, rows, ids, [digest] * len(rows))
    if len(new) != len(rows):
        raise _Raced
    return replies


def _first_answer(
    known: Sequence[Record], rows: Sequence[str], requests: Sequence[JobRequest], digest: bytes
) -> list[EnqueuedReply]:
    by_row = {row["message_id"]: row for row in known}
    if any(row["body_sha256"] != digest for row in known) or len(by_row) != len(rows):
        raise BadMessage("idempotency_key_reused", "this Idempotency-Key came with another body before")
    replies = []
    for row, request in zip(rows, requests, strict=True):
        stored: UUID | None = by_row[row]["job_id"]
        if stored is not None:
            replies.append(EnqueuedReply(id=stored, outcome=Enqueued.STORED))
        elif request.id is not None:
            replies.append(EnqueuedReply(id=request.id, outcome=Enqueued.DUPLICATE))
    return replies


def _digest(requests: Sequence[JobRequest]) -> bytes:
    """Of what was said, not of its spelling nor of defaults, which a later version may add to."""
    said = JobsRequest.model_construct(jobs=list(requests)).model_dump_json(exclude_unset=True)
    return sha256(said.encode()).digest()
