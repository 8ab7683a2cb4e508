"""Bodies as producers write them, and how they are read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import fastavro
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from hammerwork.clients.schemas.options import RegistryOptions
from hammerwork.clients.schemas.reading import RegistryFormat, RegistryReader
from hammerwork.clients.schemas.registry import Registry
from hammerwork.clients.schemas.schema import Codec
from hammerwork.core.errors import BadMessage
from hammerwork.core.ingest.decode import Decoder, Plain
from hammerwork.core.message import Message

Field = FieldDescriptorProto


def decoder_of(url: str, format: RegistryFormat, timeout: float = 5.0, **limits: Any) -> Decoder:
    registry = Registry(RegistryOptions(url=url, timeout=timedelta(seconds=timeout)))
    return Decoder(schemas=RegistryReader(registry, format), **limits)


async def read(decoder: Decoder, body: bytes, **properties: Any) -> Any:
    message = Message(body=body, **properties)
    await decoder.ready([message])
    decoded = decoder.decode(message)
    assert json.loads(decoded.text) == decoded.value
    return decoded.value


async def refusal(decoder: Decoder, body: bytes, **properties: Any) -> str:
    try:
        value = await read(decoder, body, **properties)
    except BadMessage as bad:
        return bad.reason
    raise AssertionError(f"was read: {value!r}")


def reason_of(decoder: Decoder, body: bytes) -> str | None:
    """Why a body is refused that needs no schema to be fetched; None where it is read."""
    try:
        decoder.decode(Message(body=body))
    except BadMessage as bad:
        return bad.reason
    return None


@dataclass(frozen=True, slots=True)
class Fixed:
    """A reader by one codec, of bodies without a schema id."""

    codec: Codec

    async def ready(self, bodies: Iterable[bytes]) -> None:
        return

    def plain(self, body: bytes) -> Plain:
        return self.codec.plain(body)


def framed(schema_id: int, body: bytes) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + body


def avro(schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


def message_type(name: str, *fields: FieldDescriptorProto, nested: Any = ()) -> DescriptorProto:
    return DescriptorProto(name=name, field=fields, nested_type=nested)


def field(
    name: str, number: int, kind: Any, type_name: str | None = None, *, repeated: bool = False
) -> FieldDescriptorProto:
    label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
    return Field(name=name, number=number, type=kind, label=label, type_name=type_name)


def proto_file(name: str, package: str, *types: DescriptorProto, imports: Any = ()) -> FileDescriptorProto:
    return FileDescriptorProto(
        name=name, package=package, syntax="proto3", message_type=types, dependency=imports
    )
