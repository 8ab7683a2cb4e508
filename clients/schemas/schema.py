"""Schema: a text in one of the schema languages with all that it refers to, and what it makes of bodies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ...core.errors import BadMessage
from ...core.ingest.decode import Plain


@dataclass(frozen=True, slots=True)
class Schema:
    """`text` is JSON (Avro, JSON Schema), or for Protobuf .proto source or a base64 FileDescriptorProto.

    `language` is the registries' word: AVRO, PROTOBUF, JSON. `references` are the schemas that the text
    names, each under the name by which it does so.
    """

    language: str
    text: str
    references: tuple[tuple[str, Schema], ...] = ()

    def dependencies(self) -> Iterator[tuple[str, Schema]]:
        """All that this schema needs, directly or not, each once and after what it needs itself."""
        yield from _ordered(self, set())


class Codec(Protocol):
    """A schema made ready to read bodies."""

    def plain(self, body: bytes) -> Plain:
        """The body as JSON text. Raises BadMessage and nothing else, whatever the bytes are."""
        ...


def unusable(why: str) -> BadMessage:
    """The refusal of every message whose schema we cannot work with; a schema of an id never changes."""
    return BadMessage("unusable_schema", why[:500])


def _ordered(schema: Schema, seen: set[str]) -> Iterator[tuple[str, Schema]]:
    for name, referenced in schema.references:
        if name not in seen:
            seen.add(name)
            yield from _ordered(referenced, seen)
            yield name, referenced
