"""What a message would become, as `bridge tap` and `bridge dry-run` show it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from ...core import operate
from ...core.errors import NotFound
from ...core.ingest import tap
from ...core.ingest.item import Item
from ...core.job import Json
from ...core.message import Delivery, LogBridge, Message
from ...core.postgres.store import job_of
from ..api.shapes import PriorityWord
from ..parts import Ingest
from .output import Columns, show_list
from .session import Session, talk

COLUMNS: Columns[Preview] = {
    "becomes": lambda preview: preview.becomes,
    "queue or reason": lambda preview: preview.reason if preview.job is None else preview.job.queue,
    "message": lambda preview: preview.message.id,
    "payload or detail": lambda preview: preview.detail if preview.job is None else preview.job.payload,
}


class _Shape(BaseModel):
    model_config = ConfigDict(from_attributes=True, frozen=True, ser_json_timedelta="float")


class MessageShape(_Shape):
    """The message. `body` is text, or `{"base64": …}` where it is not UTF-8."""

    id: str | None
    key: str | None
    headers: dict[str, Any]
    content_type: str | None
    content_encoding: str | None
    priority: int | None
    correlation_id: str | None
    timestamp: datetime | None
    attempt: int | None
    coordinates: dict[str, Any]
    tombstone: bool
    body: Any

    @classmethod
    def of(cls, message: Message) -> Self:
        plain = {name: getattr(message, name) for name in cls.model_fields if name != "body"}
        return cls.model_validate(plain | {"body": _readable(message.body)})


class JobShape(_Shape):
    """The job that would be stored. Spans are seconds."""

    queue: str
    payload: Any
    priority: PriorityWord
    run_at: datetime | None
    delay: timedelta | None
    max_attempts: int
    timeout: timedelta | None
    correlation_id: str | None
    headers: dict[str, Any]
    origin: dict[str, Any] | None
    traceparent: str | None


class Preview(_Shape):
    """A message and what it would become; `reason` and `detail` of a dead letter."""

    becomes: Literal["job", "dead letter", "nothing"]
    job: JobShape | None
    reason: str | None
    detail: str | None
    message: MessageShape

    @classmethod
    def of(cls, item: Item) -> Self:
        return cls(
            becomes="dead letter" if item.bad is not None else "job" if item.row is not None else "nothing",
            job=None if item.row is None else JobShape.model_validate(job_of(item.row)),
            reason=None if item.bad is None else item.bad.reason,
            detail=None if item.bad is None else item.bad.detail,
            message=MessageShape.of(item.delivery.message),
        )


def tapped(config: Path | None, ingest: Ingest, most: int, patience: timedelta) -> list[Item]:
    """Live messages of a bridge. Only of a log the database is asked, how far it was read."""
    kept: dict[str, int | None] = {}
    if isinstance(ingest.bridge, LogBridge):
        kept = talk(config, lambda session: _kept(session, ingest.name))
    look = tap.look_at(ingest.bridge, most, kept)
    return asyncio.run(tap.tap(look, ingest.preparation(), most, patience))


async def _kept(session: Session, name: str) -> dict[str, int | None]:
    with suppress(NotFound):
        offsets = await operate.bridge_offsets(session.database, name)
        return {offset.partition: offset.next_offset for offset in offsets}
    return {}


def foreseen(ingest: Ingest, sample: Message, bodies: Iterable[bytes]) -> list[Item]:
    """What would become of messages that are all like the sample, with these bodies."""
    deliveries = [Delivery(sample._replace(body=body)) for body in bodies]
    return asyncio.run(ingest.preparation().prepare(deliveries))


def show(items: Sequence[Item], as_json: bool) -> None:
    """Each message a line, or all of it as JSON."""
    show_list([Preview.of(item) for item in items], COLUMNS, as_json)


def _readable(body: bytes) -> Json:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode("ascii")}
