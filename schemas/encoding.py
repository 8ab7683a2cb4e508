"""EventEncoder: events as Avro for whoever reads them with a schema registry."""

from __future__ import annotations

import io
import json
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import fastavro

from ..core.errors import Misconfigured
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
"""What is registered under TOPIC-value. A later version of ours only adds fields with defaults."""


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
    """Writes events in Confluent's wire format, under the subject `TOPIC-value`.

    `auto_register=False` takes the id of a schema that somebody else has registered there.
    """

    def __init__(self, registry: Registry, *, auto_register: bool = True) -> None:
        self._registry = registry
        self._auto_register = auto_register
        self._schema = fastavro.parse_schema(_EVENT)
        self._ids: dict[str, int] = {}

    async def ready(self, topic: str) -> None:
        """To be awaited before events are encoded for a topic; asks the registry once a topic.

        Raises Unavailable when the registry is away, Misconfigured when it refuses us or our schema.
        """
        if topic in self._ids:
            return
        subject = f"{topic}-value"
        if self._auto_register:
            self._ids[topic] = await self._registry.register(subject, EVENT_SCHEMA)
            return
        schema_id = await self._registry.find(subject, EVENT_SCHEMA)
        if schema_id is None:
            raise Misconfigured(
                f"the schema of events is not registered under {subject!r}",
                hint="register hammerwork.schemas.encoding.EVENT_SCHEMA there, or set auto_register = true",
            )
        self._ids[topic] = schema_id

    def encode(self, topic: str, event: Loggable) -> bytes:
        """The event for a topic that is `ready`."""
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
        return with_schema_id(self._ids[topic], out.getvalue())
