"""EventEncoder: events as Avro for whoever reads them with a schema registry."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import fastavro

from ...core.errors import Disconnected, Misconfigured, Unavailable
from .registry import Registry
from .schema import Schema
from .wire import with_schema_id

_UUID = {"type": "string", "logicalType": "uuid"}
_EVENT: dict[str, Any] = {
    "type": "record",
    "name": "Event",
    "namespace": "dev.hammerwork",
    "doc": "What happened to a job. Order by (job_id, sequence); drop what you have seen by id.",
    "fields": [
        {"name": "id", "type": _UUID},
        {"name": "source", "type": "string"},
        {"name": "type", "type": "string", "doc": "dev.hammerwork.job.completed, …"},
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "job_id", "type": ["null", _UUID], "default": None},
        {"name": "sequence", "type": "long", "doc": "Rises by one with every change of the same job."},
        {"name": "queue", "type": ["null", "string"], "default": None},
        {
            "name": "data",
            "type": "string",
            "doc": "JSON text; what is in it differs by type.",
        },
    ],
}

EVENT_SCHEMA = Schema("AVRO", json.dumps(_EVENT, ensure_ascii=False))
"""What is registered. A later version of ours only adds fields with defaults."""


class Loggable(Protocol):
    """What of an event is encoded; `text` is its data as JSON."""

    @property
    def id(self) -> UUID: ...
    @property
    def source(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def at(self) -> datetime: ...
    @property
    def job_id(self) -> UUID | None: ...
    @property
    def sequence(self) -> int: ...
    @property
    def queue(self) -> str | None: ...
    @property
    def text(self) -> str: ...


class EventEncoder:
    """Writes events in Confluent's wire format. The same schema has the same id under every subject, so one
    `subject` serves a sink of several topics; `subject_of` says which readers expect.

    `auto_register=False` takes the id of a schema that somebody else has registered there.
    """

    HEADERS: Sequence[tuple[str, bytes]] = [("content-type", b"application/vnd.apache.avro")]

    def __init__(self, registry: Registry, subject: str, *, auto_register: bool = True) -> None:
        self._registry = registry
        self._subject = subject
        self._auto_register = auto_register
        self._schema = fastavro.parse_schema(_EVENT)
        self._id: int | None = None

    async def open(self) -> None:
        """To be awaited before events are written; asks the registry once.

        Raises Disconnected when the registry is away, Misconfigured when it refuses us or our schema.
        """
        if self._id is not None:
            return
        if not self._auto_register:
            await self.look()
            return
        try:
            self._id = await self._registry.register(self._subject, EVENT_SCHEMA)
        except Unavailable as error:
            raise Disconnected(str(error)) from error

    async def look(self) -> None:
        """Ask the registry and register nothing. Raises as `open` does, but for what only registering shows:
        whether a schema that is new to it fits those before."""
        try:
            found = await self._registry.find(self._subject, EVENT_SCHEMA)
        except Unavailable as error:
            raise Disconnected(str(error)) from error
        self._id = self._id or found
        if found is None and not self._auto_register:
            raise Misconfigured(
                f"the schema of events is not registered under {self._subject!r}",
                hint="register hammerwork.clients.schemas.encoding.EVENT_SCHEMA there,"
                " or set auto_register = true",
            )

    def value(self, event: Loggable) -> bytes:
        """The event, once this is open."""
        assert self._id is not None
        out = io.BytesIO()
        fields = {
            "id": event.id,
            "source": event.source,
            "type": f"dev.hammerwork.{event.type}",
            "time": event.at,
            "job_id": event.job_id,
            "sequence": event.sequence,
            "queue": event.queue,
            "data": event.text,
        }
        fastavro.schemaless_writer(out, self._schema, fields)
        return with_schema_id(self._id, out.getvalue())

    def headers(self, event: Loggable) -> Sequence[tuple[str, bytes]]:
        return self.HEADERS


def subject_of(topic: str | None) -> str:
    """The subject under which readers of a topic look for its schema; the record's name where there are
    several topics (None)."""
    return f"{_EVENT['namespace']}.{_EVENT['name']}" if topic is None else f"{topic}-value"
