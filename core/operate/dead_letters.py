"""Acts on dead letters: list, look, replay, discard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from ..errors import NotFound, StateConflict
from ..job import SINK_QUEUE_PREFIX, Json
from ..message import Message
from ..postgres import store
from ..postgres.database import Database, Record, statement
from ..publish.batch import told_by
from .jobs import retry
from .sinks import sinks


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message or job that was given up, as it is listed. `replayable`: its bytes are whole."""

    id: UUID
    bridge: str | None
    queue: str | None
    job_id: UUID | None
    message_id: str | None
    reason: str
    detail: str
    body_size: int
    attempts: int
    created_at: datetime
    replayed_at: datetime | None
    replayed_as: UUID | None
    discarded_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterBody:
    """What `dead show` adds: the bytes (cut at the bridge's cap), headers and coordinates."""

    letter: DeadLetter
    body: bytes
    body_sha256: bytes
    content_type: str | None
    headers: Mapping[str, Json]
    coordinates: Mapping[str, Json]
    message: Mapping[str, Json]

    @property
    def whole(self) -> bool:
        return len(self.body) == self.letter.body_size


class Replayer(Protocol):
    """Who turns a bridge's message into a row of enqueue.sql again: the bridge's own decoder and mapping.

    Answers None when the mapping filters the message out; raises BadMessage when it is still bad.
    """

    async def row_for(self, message: Message) -> tuple[object, ...] | None: ...


async def dead_letters(
    database: Database,
    *,
    bridge: str | None = None,
    queue: str | None = None,
    reason: str | None = None,
    before: UUID | None = None,
    limit: int = 50,
    closed: bool = False,
) -> list[DeadLetter]:
    """Open dead letters (with `closed` also replayed and discarded ones), newest first."""
    rows = await database.fetch("list_dead_letters", bridge, queue, reason, before, limit, closed)
    return [DeadLetter(**row) for row in rows]


async def dead_letter(database: Database, letter_id: UUID) -> DeadLetterBody:
    """One dead letter with its bytes. Raises NotFound."""
    rows = await database.fetch("dead_letter", letter_id)
    if not rows:
        raise NotFound(f"no dead letter {letter_id}")
    return _letter(rows[0])


async def replay(database: Database, letter_id: UUID, replayers: Mapping[str, Replayer]) -> UUID | None:
    """Try a dead letter again: a job gets new attempts, a message goes through its bridge's mapping, an event
    is logged once more for the sink that refused it.

    Returns the job's id, or None for an event and when the mapping filters the message out (the letter is
    closed all the same). The job and the mark on the letter commit together, so two replays at once make one.
    Raises NotFound, StateConflict (closed already, bytes cut, bridge not configured here, job's history
    gone) and BadMessage (still bad; the letter stays open).
    """
    letter = await dead_letter(database, letter_id)
    if letter.letter.replayed_at or letter.letter.discarded_at:
        raise StateConflict(f"dead letter {letter_id} is closed already")
    if letter.letter.bridge is None:
        if letter.letter.job_id is None:
            await _log_again(database, letter)
            return None
        await retry(database, letter.letter.job_id)
        return letter.letter.job_id
    replayer = replayers.get(letter.letter.bridge)
    if replayer is None:
        raise StateConflict(
            f"dead letter {letter_id} came by bridge {letter.letter.bridge!r}, which is not configured here"
        )
    if not letter.whole:
        raise StateConflict(
            f"dead letter {letter_id} keeps {len(letter.body)} of {letter.letter.body_size} bytes: too large"
        )
    row = await replayer.row_for(_message(letter))
    async with database.transaction() as connection:
        job_id = None if row is None else row[0]
        if not await connection.fetch(statement("mark_replayed"), letter_id, job_id):
            raise StateConflict(f"dead letter {letter_id} is closed already")
        if row is not None:
            await store.enqueue(connection, [row], announce=[str(row[1])])
    return job_id if isinstance(job_id, UUID) else None


async def _log_again(database: Database, letter: DeadLetterBody) -> None:
    queue = letter.letter.queue or ""
    sink = queue.removeprefix(SINK_QUEUE_PREFIX)
    if sink not in {known.name for known in await sinks(database)}:
        raise StateConflict(f"dead letter {letter.letter.id} is of sink {sink!r}, which is gone")
    async with database.transaction() as connection:
        if not await connection.fetch(statement("mark_replayed"), letter.letter.id, None):
            raise StateConflict(f"dead letter {letter.letter.id} is closed already")
        await connection.fetch(statement("log_letter_again"), sink, *told_by(letter.body))


async def discard(database: Database, letter_id: UUID) -> None:
    """Close a dead letter without a replay. Its row stays for the retention time. NotFound, StateConflict."""
    if not await database.fetch("discard_dead_letters", [letter_id]):
        await dead_letter(database, letter_id)
        raise StateConflict(f"dead letter {letter_id} is closed already")


def _letter(row: Record) -> DeadLetterBody:
    fields = DeadLetter.__dataclass_fields__
    return DeadLetterBody(
        letter=DeadLetter(**{name: row[name] for name in fields}),
        body=row["body"],
        body_sha256=row["body_sha256"],
        content_type=row["content_type"],
        headers=json.loads(row["headers"]),
        coordinates=json.loads(row["coordinates"]),
        message=json.loads(row["message"]),
    )


def _message(letter: DeadLetterBody) -> Message:
    kept = dict(letter.message)
    timestamp = kept.pop("timestamp", None)
    return Message(
        body=letter.body,
        id=letter.letter.message_id,
        headers=letter.headers,
        content_type=letter.content_type,
        coordinates=letter.coordinates,
        timestamp=datetime.fromisoformat(timestamp) if timestamp else None,
        **kept,
    )
