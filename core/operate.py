"""The one door for acts: whatever an operator or application does to jobs, queues, dead letters and
sinks is a function here, called by Queue, CLI and API alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from .errors import Misconfigured, NotFound, StateConflict
from .job import SINK_QUEUE_PREFIX, JobState, Json, check_name
from .message import Message
from .postgres import store
from .postgres.database import Database, Record, statement
from .publish.batch import told_by
from .publish.relay import Subscription, replay_since

# --- jobs ----------------------------------------------------------------------------------------


async def cancel(database: Database, job_id: UUID, reason: str) -> JobState:
    """Cancel a waiting job, ask a running one to stop; the state it was in. NotFound, StateConflict."""
    async with database.transaction() as connection:
        rows = await connection.fetch(statement("cancel"), [job_id], reason)
        if rows and rows[0]["state"] == JobState.RUNNING:
            await connection.fetch(statement("announce"), [f"cancel {job_id}"])
    if not rows:
        await _refuse(database, job_id, "cancel")
    return JobState(rows[0]["state"])


async def retry(database: Database, job_id: UUID) -> None:
    """A finished job gets all its attempts again; a scheduled one is due now. NotFound, StateConflict."""
    async with database.transaction() as connection:
        rows = await connection.fetch(statement("retry"), [job_id])
        await connection.fetch(statement("announce"), [f"queue {row['queue']}" for row in rows])
    if not rows:
        await _refuse(database, job_id, "retry")


async def _refuse(database: Database, job_id: UUID, act: str) -> None:
    rows = await database.fetch("get", job_id)
    if not rows:
        raise NotFound(f"no job {job_id}")
    raise StateConflict(f"cannot {act} job {job_id}: it is {rows[0]['state']}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One unsuccessful attempt of a job. `cause`: failed, timed_out or lost."""

    attempt: int
    lease: int
    worker: UUID | None
    started_at: datetime | None
    ended_at: datetime
    cause: str
    error: str | None
    traceback: str | None


async def attempts(database: Database, job_id: UUID) -> list[Attempt]:
    """The job's unsuccessful attempts, oldest first."""
    return [Attempt(**row) for row in await database.fetch("attempts_of", job_id)]


# --- queues --------------------------------------------------------------------------------------


async def pause_queue(database: Database, queue: str, reason: str = "") -> None:
    """Nothing more of the queue is claimed, by any worker, until `resume_queue`."""
    await database.fetch("pause_queue", check_name("queue", queue), reason)


async def resume_queue(database: Database, queue: str) -> bool:
    """Claim again; whether the queue was paused."""
    resumed = await database.fetch("resume_queue", check_name("queue", queue))
    if resumed:
        await database.fetch("announce", [f"queue {queue}"])
    return bool(resumed)


# --- bridges -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeRecord:
    """A bridge as the database knows it. `seen_at`: when a gateway last opened it."""

    name: str
    kind: str
    seen_at: datetime
    paused_at: datetime | None
    pause_reason: str | None

    @property
    def state(self) -> str:
        return "active" if self.paused_at is None else "paused"


async def bridges(database: Database) -> list[BridgeRecord]:
    """Every bridge that a gateway has opened."""
    return [BridgeRecord(**row) for row in await database.fetch("list_bridges")]


async def pause_bridge(database: Database, name: str, reason: str = "") -> None:
    """The bridge pulls nothing more, in any gateway, within a second or two, until `resume_bridge`. Its
    messages wait at the broker. NotFound."""
    if not await database.fetch("pause_bridge", name, reason):
        raise NotFound(f"no gateway has opened a bridge {name!r}")


async def resume_bridge(database: Database, name: str) -> bool:
    """Pull again; whether the bridge was paused. NotFound."""
    rows = await database.fetch("resume_bridge", name)
    if not rows:
        raise NotFound(f"no gateway has opened a bridge {name!r}")
    return bool(rows[0]["paused"])


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionOffset:
    """How far a partition of a log was read. `next_offset` None: it was taken and not begun. `fence` rises
    with every owner and every `seek_bridge`."""

    partition: str
    next_offset: int | None
    fence: int
    moved_at: datetime


async def bridge_offsets(database: Database, name: str) -> list[PartitionOffset]:
    """The partitions that a log bridge has ever read; none for other bridges. NotFound."""
    rows = await database.fetch("list_offsets", name)
    if not rows:
        await _known_bridge(database, name)
    return [PartitionOffset(**row) for row in rows]


async def seek_bridge(database: Database, name: str, partition: str, offset: int) -> int | None:
    """Go on at another offset of a partition; the one before. What a gateway has in hand of it is not stored.

    Back: what lies between is read again, and stored again unless its identity is known. On: it is never
    read. Raises NotFound, and StateConflict while the bridge is not paused.
    """
    if offset < 0:
        raise Misconfigured(f"an offset is 0 or more, not {offset}")
    rows = await database.fetch("seek_bridge", name, partition, offset)
    if rows:
        before: int | None = rows[0]["before"]
        return before
    known = [kept.partition for kept in await bridge_offsets(database, name)]
    if partition not in known:
        there_are = ", ".join(known) or "none"
        raise NotFound(f"bridge {name!r} has never read a partition {partition!r} (there are: {there_are})")
    raise StateConflict(f"bridge {name!r} is not paused: pause it, seek, resume it")


async def _known_bridge(database: Database, name: str) -> BridgeRecord:
    for bridge in await bridges(database):
        if bridge.name == name:
            return bridge
    raise NotFound(f"no gateway has opened a bridge {name!r}")


# --- dead letters --------------------------------------------------------------------------------


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


# --- workers and sinks ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A worker's life as the database knows it. `silent` is the age of its heartbeat."""

    id: UUID
    host: str
    pid: int
    queues: list[str]
    concurrency: int
    lease: timedelta
    state: str
    started_at: datetime
    heartbeat_at: datetime
    silent: timedelta
    lost: bool


async def workers(database: Database) -> list[WorkerInfo]:
    return [WorkerInfo(**row) for row in await database.fetch("list_workers")]


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkInfo:
    """A sink's state, how many wanted events are ahead of its position (capped at 10001), and how old the
    oldest of those is."""

    name: str
    kind: str
    types: list[str]
    state: str
    reason: str | None
    position_xid: str
    position_id: int
    failing_since: datetime | None
    registered_at: datetime
    behind: int
    lag: timedelta | None


async def sinks(database: Database) -> list[SinkInfo]:
    return [SinkInfo(**row) for row in await database.fetch("list_sinks")]


async def pause_sink(database: Database, sink: str, reason: str = "") -> None:
    """Hold the sink's events and deliveries until `resume_sink`. NotFound."""
    await _set_sink(database, sink, "paused", reason)


async def disable_sink(database: Database, sink: str, reason: str) -> None:
    """What the framework does to a sink that is gone; as `pause_sink`, with an operator event."""
    await _set_sink(database, sink, "disabled", reason)


async def resume_sink(database: Database, sink: str) -> None:
    """Go on where the sink stopped. NotFound."""
    await _set_sink(database, sink, "active", None)
    await database.fetch("announce", [f"queue sink.{sink}"])


async def remove_sink(database: Database, sink: str) -> None:
    """Forget a sink that is not configured any more: its position goes, so events are not kept for it.

    Its waiting deliveries stay in the queue `sink.<name>`. Raises NotFound, and StateConflict while a
    gateway relays to it.
    """
    if await database.fetch("remove_sink", sink):
        return
    if sink in {known.name for known in await sinks(database)}:
        raise StateConflict(f"a gateway relays to sink {sink!r}: take it out of its settings first")
    raise NotFound(f"no sink {sink!r}")


async def _set_sink(database: Database, sink: str, state: str, reason: str | None) -> None:
    if not await database.fetch("set_sink_state", sink, state, reason) and sink not in {
        known.name for known in await sinks(database)
    }:
        raise NotFound(f"no sink {sink!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """One try to deliver one event. `outcome`: done, retry, dead, …"""

    sink: str
    job_id: UUID
    event_id: str
    attempt: int
    status: int | None
    error: str | None
    ran: timedelta
    response: str
    outcome: str
    at: datetime


async def deliveries(
    database: Database, sink: str, *, failed: bool = False, limit: int = 50
) -> list[DeliveryRecord]:
    """The sink's delivery log, newest first."""
    rows = await database.fetch("list_deliveries", sink, failed, limit)
    return [DeliveryRecord(**row) for row in rows]


async def replay_delivery(database: Database, job_id: UUID) -> None:
    """Deliver one event again, under the same event id: the retry of its delivery job."""
    await retry(database, job_id)


async def replay_sink_since(database: Database, subscription: Subscription, since: datetime) -> int:
    """Send all kept events from a time on again, under their first ids; how many."""
    return await replay_since(database, subscription, since)
