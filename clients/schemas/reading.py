"""Readers: what the intake's decoder is given for formats that need a schema."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import structlog

from ...core.errors import BadMessage, Misconfigured, MissingExtra, Unavailable
from ...core.ingest.decode import Plain
from .schema import Codec, Schema
from .wire import HEADER, schema_id_of

log = structlog.get_logger(__name__)

RegistryFormat = Literal["avro", "protobuf", "json_schema"]

REMEMBERED = 30.0
"""Seconds for which a refusal of a schema id is kept: a schema may have been registered a moment ago on
another node, and what we cannot read today a newer version of ours may."""

MOST_REFUSALS = 10_000


class SchemaSource(Protocol):
    """Where schemas come from by id; `Registry` implements it."""

    async def schema(self, schema_id: int) -> Schema | None:
        """None when there is none of that id. Raises Unavailable, Misconfigured, and BadMessage for a schema
        that cannot be put together."""
        ...


@dataclass(frozen=True, slots=True)
class _Refusal:
    reason: str
    detail: str
    until: float


class RegistryReader:
    """Implements `core.ingest.decode.SchemaReader` for bodies in Confluent's wire format.

    What an id stands for never changes, so each is asked for once; decoding itself never waits.
    """

    def __init__(self, source: SchemaSource, format: RegistryFormat) -> None:
        self._source = source
        self._language, self._codec = _codec_of(format)
        self._codecs: dict[int, Codec] = {}
        self._refusals: dict[int, _Refusal] = {}

    async def ready(self, bodies: Iterable[bytes]) -> None:
        now = time.monotonic()
        named = {schema_id for body in bodies if (schema_id := schema_id_of(body)) is not None}
        for schema_id in sorted(named - self._codecs.keys()):
            refusal = self._refusals.get(schema_id)
            if refusal is None or refusal.until < now:
                await self._learn(schema_id)

    def plain(self, body: bytes) -> Plain:
        schema_id = schema_id_of(body)
        if schema_id is None:
            raise BadMessage("no_schema_id", "a zero byte and a schema's id are expected before the body")
        if (codec := self._codecs.get(schema_id)) is not None:
            return codec.plain(body[HEADER:])
        if (refusal := self._refusals.get(schema_id)) is not None:
            raise BadMessage(refusal.reason, refusal.detail)
        raise Unavailable(f"schema {schema_id} has not been asked for")

    async def _learn(self, schema_id: int) -> None:
        try:
            schema = await self._source.schema(schema_id)
            if schema is None:
                raise BadMessage("unknown_schema", "the registry has none of that id")
            if schema.language != self._language:
                raise BadMessage("wrong_schema_type", f"it is {schema.language[:40]}")
            self._codecs[schema_id] = await asyncio.to_thread(self._codec, schema)
            self._refusals.pop(schema_id, None)
            log.info("schema learnt", schema_id=schema_id, language=schema.language)
        except BadMessage as bad:
            if len(self._refusals) >= MOST_REFUSALS:
                self._refusals.clear()
            until = time.monotonic() + REMEMBERED
            self._refusals[schema_id] = _Refusal(bad.reason, f"schema {schema_id}: {bad.detail}", until)


class FileReader:
    """Implements `core.ingest.decode.SchemaReader` by one schema from a file: JSON that must fit it, or Avro,
    bare or in single-object encoding."""

    def __init__(self, path: Path, format: Literal["json", "avro"]) -> None:
        language, codec = _codec_of("json_schema" if format == "json" else "bare_avro")
        try:
            self._codec = codec(Schema(language, path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, BadMessage) as error:
            raise Misconfigured(
                f"decode.schema_file {str(path)!r} cannot be used: {error}",
                hint=f"give the path of a {'JSON Schema' if format == 'json' else 'schema in Avro'} as JSON",
            ) from error

    async def ready(self, bodies: Iterable[bytes]) -> None:
        return

    def plain(self, body: bytes) -> Plain:
        return self._codec.plain(body)


def _codec_of(format: RegistryFormat | Literal["bare_avro"]) -> tuple[str, Callable[[Schema], Codec]]:
    """The language and the codec of a format. Raises MissingExtra."""
    try:
        match format:
            case "avro":
                from .avro import AvroCodec

                return "AVRO", AvroCodec
            case "bare_avro":
                from .avro import BareAvroCodec

                return "AVRO", BareAvroCodec
            case "protobuf":
                from .protobuf import ProtobufCodec

                return "PROTOBUF", ProtobufCodec
            case "json_schema":
                from .json_schema import JsonSchemaCodec

                return "JSON", JsonSchemaCodec
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == __package__.partition(".")[0]:
            raise
        raise MissingExtra(f"the format {format!r}", "schema") from error
