"""Avro bodies: binary data and its schema to JSON, by fastavro."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
from fastavro import _read_py as careful
from fastavro.schema import fingerprint, to_parsing_canonical_form

from ...core.errors import BadMessage
from ...core.ingest.decode import Plain
from .schema import Schema, unusable

SINGLE_OBJECT = b"\xc3\x01"
"""What a body in Avro's single-object encoding begins with; the schema's fingerprint follows."""


class AvroCodec:
    """Reads bodies that were written with one schema; raises BadMessage(unusable_schema) for a bad one.

    Decimals become text, bytes and fixed `{"base64": …}`, times RFC 3339 text (local ones without a zone),
    enums their symbol, unions the value alone.
    """

    def __init__(self, schema: Schema) -> None:
        named: dict[str, Any] = {}
        try:
            for _, dependency in schema.dependencies():
                fastavro.parse_schema(json.loads(dependency.text), named_schemas=named)
            self._schema = fastavro.parse_schema(json.loads(schema.text), named_schemas=named)
            shape = _Shape(named)
            shape.look(self._schema)
        except BadMessage:
            raise
        except Exception as error:
            raise unusable(f"{type(error).__name__}: {error}") from error
        # The compiled reader has no limit for nesting: a recursive schema and some kilobytes overflow its
        # stack and end the process. The one in Python raises RecursionError.
        self._read: Callable[..., object] = (
            careful.schemaless_reader if shape.recursive else fastavro.schemaless_reader
        )

    def plain(self, body: bytes) -> Plain:
        stream = io.BytesIO(body)
        try:
            value = self._read(stream, self._schema, None)
            text = json.dumps(value, default=_plain_value, allow_nan=False)
        except RecursionError as error:
            raise BadMessage("too_deep", "the Avro value nests too deeply") from error
        except BadMessage:
            raise
        except MemoryError:
            raise
        except Exception as error:
            if isinstance(error, ValueError) and "JSON compliant" in str(error):
                raise BadMessage("not_finite", "in the Avro value") from error
            raise BadMessage("bad_avro", f"{type(error).__name__}: {error}"[:500]) from error
        if left := len(body) - stream.tell():
            raise BadMessage("bad_avro", f"{left} bytes follow the value")
        return Plain(text.encode())


class BareAvroCodec(AvroCodec):
    """The same for bodies of one known schema, which may be in single-object encoding."""

    def __init__(self, schema: Schema) -> None:
        super().__init__(schema)
        mark = fingerprint(to_parsing_canonical_form(self._schema), "CRC-64-AVRO")
        self._mark = SINGLE_OBJECT + bytes.fromhex(mark)

    def plain(self, body: bytes) -> Plain:
        return super().plain(body.removeprefix(self._mark))


class _Shape:
    """What matters of a schema before it may read anything: whether it is recursive, and that every item of
    its arrays takes bytes. Ten bytes would make a list of a billion items that take none."""

    def __init__(self, named: dict[str, Any]) -> None:
        self.recursive = False
        self._named = named
        self._within: list[str] = []

    def look(self, schema: Any) -> int:
        """The fewest bytes that a value takes, 0 or 1."""
        match schema:
            case list():
                return max([1, *map(self.look, schema)])
            case str() if schema in self._named:
                return self._record(self._named[schema]) if schema not in self._within else self._again()
            case str():
                return int(schema != "null")
            case {"type": "record" | "error"}:
                return self._record(schema)
            case {"type": "array", "items": items}:
                if not self.look(items):
                    raise unusable("an array whose items take no bytes")
                return 1
            case {"type": "map", "values": values}:
                self.look(values)
                return 1
            case {"type": "fixed", "size": int(size)}:
                return int(size > 0)
            case {"type": "enum"}:
                return 1
            case {"type": inner}:
                return self.look(inner)
        raise unusable("a schema of no known shape")

    def _record(self, schema: Any) -> int:
        if schema.get("type") not in ("record", "error"):
            return self.look(schema)
        name = schema["name"]
        if name in self._within:
            return self._again()
        self._within.append(name)
        sizes = [self.look(field["type"]) for field in schema["fields"]]
        self._within.pop()
        return max(sizes, default=0)

    def _again(self) -> int:
        """A record within itself: what holds it there, an array, a map or a union, takes a byte already."""
        self.recursive = True
        return 1


def _plain_value(value: object) -> object:
    match value:
        case bytes():
            return {"base64": base64.b64encode(value).decode("ascii")}
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case date() | time():
            return value.isoformat()
        case Decimal():
            return format(value, "f")
        case UUID():
            return str(value)
        case timedelta():
            return value.total_seconds()
    raise BadMessage("bad_avro", f"a value of the type {type(value).__name__} has no JSON form")
