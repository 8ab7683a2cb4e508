"""Formats: what an event looks like on the wire of a log, its value and its headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ..core.event import LoggedEvent

Header = tuple[str, bytes]


class Format(Protocol):
    """How events are written. `open` fetches what that needs, a schema for instance, and raises what
    `LogSink.open` raises. `value` raises BadMessage for an event that cannot be written, which then becomes
    a dead letter."""

    async def open(self) -> None: ...

    async def look(self) -> None:
        """As `open`, for `LogSink.guarantee`: it changes nothing outside."""
        ...

    def value(self, event: LoggedEvent) -> bytes: ...

    def headers(self, event: LoggedEvent) -> Sequence[Header]:
        """For destinations that have headers."""
        ...


class Structured:
    """A CloudEvents 1.0 object in JSON."""

    _HEADERS: Sequence[Header] = [("content-type", b"application/cloudevents+json; charset=UTF-8")]

    async def open(self) -> None:
        return None

    async def look(self) -> None:
        return None

    def value(self, event: LoggedEvent) -> bytes:
        return event.cloud_event().encode()

    def headers(self, event: LoggedEvent) -> Sequence[Header]:
        return self._HEADERS


class Binary:
    """The attributes of a CloudEvent as headers (Kafka protocol binding 1.0.2, §3.2), its data as value."""

    async def open(self) -> None:
        return None

    async def look(self) -> None:
        return None

    def value(self, event: LoggedEvent) -> bytes:
        return event.body().encode()

    def headers(self, event: LoggedEvent) -> Sequence[Header]:
        found = [
            ("ce_specversion", b"1.0"),
            ("ce_id", str(event.id).encode()),
            ("ce_source", event.source.encode()),
            ("ce_type", f"dev.hammerwork.{event.type}".encode()),
            ("ce_time", event.time.encode()),
            ("content-type", b"application/json"),
            ("ce_sequence", f"{event.sequence:010d}".encode()),
        ]
        if event.job_id is not None:
            job = str(event.job_id).encode()
            found += [("ce_subject", job), ("ce_partitionkey", job)]
        return found


class Plain:
    """One flat JSON object, its data as Postgres wrote it."""

    _HEADERS: Sequence[Header] = [("content-type", b"application/json")]

    async def open(self) -> None:
        return None

    async def look(self) -> None:
        return None

    def value(self, event: LoggedEvent) -> bytes:
        job = f'"{event.job_id}"' if event.job_id else "null"
        queue = f'"{event.queue}"' if event.queue else "null"
        return (
            f'{{"id":"{event.id}","type":"{event.type}","job_id":{job},"sequence":{event.sequence},'
            f'"queue":{queue},"time":"{event.time}","data":{event.text}}}'
        ).encode()

    def headers(self, event: LoggedEvent) -> Sequence[Header]:
        return self._HEADERS


FORMATS: Mapping[str, type[Structured | Binary | Plain]] = {
    "cloudevents": Structured,
    "cloudevents-binary": Binary,
    "json": Plain,
}
