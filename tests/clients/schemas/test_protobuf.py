"""Protobuf: messages of files that only the registry knows, read as ProtoJSON."""

from __future__ import annotations

import base64
from importlib.util import find_spec
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import EnumDescriptorProto, EnumValueDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import DESCRIPTOR as TIMESTAMP
from hypothesis import given, settings
from hypothesis import strategies as st

from hammerwork.clients.schemas.protobuf import ProtobufCodec
from hammerwork.clients.schemas.schema import Schema
from hammerwork.core.errors import BadMessage, Misconfigured
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.message import Message

from .bodies import (
    Field,
    Fixed,
    decoder_of,
    field,
    framed,
    message_type,
    proto_file,
    read,
    reason_of,
    refusal,
)
from .registry_server import RegistryServer, Version

SHARED = proto_file("shared.proto", "shop.shared")
SHARED.enum_type.append(
    EnumDescriptorProto(
        name="Kind",
        value=[
            EnumValueDescriptorProto(name="NEW", number=0),
            EnumValueDescriptorProto(name="OLD", number=1),
        ],
    )
)
ORDERS = proto_file(
    "default",
    "shop",
    message_type("Nothing"),
    message_type(
        "Order",
        field("order_id", 1, Field.TYPE_STRING),
        field("kind", 2, Field.TYPE_ENUM, ".shop.shared.Kind"),
        field("placed_at", 3, Field.TYPE_MESSAGE, ".google.protobuf.Timestamp"),
        field("lines", 4, Field.TYPE_MESSAGE, ".shop.Order.Line", repeated=True),
        field("total", 5, Field.TYPE_INT64),
        field("raw", 6, Field.TYPE_BYTES),
        field("vip", 7, Field.TYPE_BOOL),
        field("parent", 8, Field.TYPE_MESSAGE, ".shop.Order"),
        field("share", 9, Field.TYPE_DOUBLE),
        field("price", 10, Field.TYPE_MESSAGE, ".confluent.type.Decimal"),
        nested=[message_type("Line", field("n", 1, Field.TYPE_INT32))],
    ),
    imports=[
        "shared.proto",
        "google/protobuf/timestamp.proto",
        "confluent/meta.proto",
        "confluent/type/decimal.proto",
    ],
)
ORDER, LINE = b"\x02\x02", b"\x04\x02\x00"
"""The message indexes [1] and [1, 0]: a count and the indexes, zigzag varints."""


def pool() -> DescriptorPool:
    """What a producer has compiled in."""
    pool = DescriptorPool()
    meta = FileDescriptorProto(name="confluent/meta.proto")
    decimal = proto_file(
        "confluent/type/decimal.proto",
        "confluent.type",
        message_type("Decimal", field("value", 1, Field.TYPE_BYTES), field("scale", 3, Field.TYPE_INT32)),
    )
    for file in (FileDescriptorProto.FromString(TIMESTAMP.serialized_pb), meta, decimal, SHARED, ORDERS):
        pool.Add(file)
    return pool


TYPES = pool()


def order(**values: Any) -> Any:
    return GetMessageClass(TYPES.FindMessageTypeByName("shop.Order"))(**values)


@pytest.fixture
def schema_id(registry: RegistryServer) -> int:
    registry.protobuf(SHARED.SerializeToString(), "shared")
    return registry.protobuf(ORDERS.SerializeToString(), "orders", shared__proto="shared")


async def test_a_message_is_read_as_proto_json(registry: RegistryServer, schema_id: int) -> None:
    sent = order(order_id="a", kind=1, total=2**62, raw=b"\0", lines=[{"n": 1}])
    sent.placed_at.FromJsonString("2026-01-02T03:04:05Z")
    body = framed(schema_id, ORDER + sent.SerializeToString())
    assert await read(decoder_of(registry.url, "protobuf"), body) == {
        "orderId": "a",
        "kind": "OLD",
        "placedAt": "2026-01-02T03:04:05Z",
        "lines": [{"n": 1}],
        "total": str(2**62),
        "raw": "AA==",
        "vip": False,
        "share": 0.0,
    }


async def test_the_message_indexes_choose_the_message(registry: RegistryServer, schema_id: int) -> None:
    decoder = decoder_of(registry.url, "protobuf")
    assert await read(decoder, framed(schema_id, b"\0")) == {}
    assert await read(decoder, framed(schema_id, LINE + b"\x08\x07")) == {"n": 7}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (ORDER + b"\x0a\x05ab", "bad_protobuf"),  # a length beyond the end
        (ORDER + b"\xff\xff\xff", "bad_protobuf"),
        (ORDER + b"\x0a\x02\xff\xfe", "bad_protobuf"),  # not UTF-8
        (ORDER + order(order_id="a\0b").SerializeToString(), "nul_character"),
        (b"\x02\x08", "bad_protobuf"),  # the fourth message of two
        (b"\x01", "bad_protobuf"),  # minus one indexes
        (b"\xfe\xff\xff\xff\x0f", "bad_protobuf"),
        (b"\x02\xff", "bad_protobuf"),
        (b"", "bad_protobuf"),
    ],
)
async def test_bad_bodies_have_their_reason(
    registry: RegistryServer, schema_id: int, body: bytes, reason: str
) -> None:
    assert await refusal(decoder_of(registry.url, "protobuf"), framed(schema_id, body)) == reason


async def test_nesting_has_its_limit(registry: RegistryServer, schema_id: int) -> None:
    for levels, reason in ((70, "too_deep"), (3000, "bad_protobuf")):
        nested = b""
        for _ in range(levels):
            nested = b"\x42" + varint(len(nested)) + nested
        assert (
            await refusal(decoder_of(registry.url, "protobuf"), framed(schema_id, ORDER + nested)) == reason
        )


async def test_not_a_number_is_text_as_in_proto_json(registry: RegistryServer, schema_id: int) -> None:
    body = framed(schema_id, ORDER + order(share=float("nan")).SerializeToString())
    assert (await read(decoder_of(registry.url, "protobuf"), body))["share"] == "NaN"


async def test_what_a_file_imports_must_be_among_its_references(registry: RegistryServer) -> None:
    schema_id = registry.protobuf(ORDERS.SerializeToString())
    decoder = decoder_of(registry.url, "protobuf")
    message = Message(body=framed(schema_id, ORDER))
    await decoder.ready([message])
    with pytest.raises(BadMessage, match=r"unusable_schema: .*imports 'shared\.proto'"):
        decoder.decode(message)


# --- registries that give source ---

SOURCE = """
syntax = "proto3";
package shop;
import "shop/kind.proto";
import "google/protobuf/duration.proto";
message Order { string id = 1; Kind kind = 2; google.protobuf.Duration wait = 3; }
"""
KIND = 'syntax = "proto3"; package shop; enum Kind { NEW = 0; OLD = 1; }'


def test_source_is_compiled_where_the_compiler_is_installed() -> None:
    pytest.importorskip("grpc_tools", reason="pip install grpcio-tools")
    kind = ("shop/kind.proto", Schema("PROTOBUF", KIND))
    codec = ProtobufCodec(Schema("PROTOBUF", SOURCE, (kind,)))
    assert codec.plain(b"\0\x0a\x01a\x10\x01\x1a\x02\x08\x05").text == (
        b'{"id": "a", "kind": "OLD", "wait": "5s"}'
    )
    with pytest.raises(BadMessage, match=r"unusable_schema: protoc: .*kind\.proto"):
        ProtobufCodec(Schema("PROTOBUF", SOURCE))
    outside = ("../kind.proto", Schema("PROTOBUF", KIND))
    with pytest.raises(BadMessage, match=r"unusable_schema: it imports '\.\./kind\.proto'"):
        ProtobufCodec(Schema("PROTOBUF", SOURCE, (outside,)))


def test_source_without_a_compiler_holds_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hammerwork.clients.schemas.protobuf.find_spec", lambda name: None)
    with pytest.raises(Misconfigured, match="as source, which must be compiled") as held:
        ProtobufCodec(Schema("PROTOBUF", KIND))
    assert "grpcio-tools" in held.value.hint


@pytest.mark.parametrize("compiles_nothing", [True, False])
async def test_a_registry_without_descriptors_gives_source(
    registry: RegistryServer, compiles_nothing: bool
) -> None:
    """Some refuse to give a descriptor, some give source all the same."""
    registry.compiles_nothing = compiles_nothing
    source = 'syntax = "proto3"; message Order { string id = 1; }'
    schema_id = registry.add(Version(source, "PROTOBUF"), "orders")
    reading = read(decoder_of(registry.url, "protobuf"), framed(schema_id, b"\0\x0a\x01a"))
    if find_spec("grpc_tools") is None:
        with pytest.raises(Misconfigured, match="as source"):
            await reading
    else:
        assert await reading == {"id": "a"}


# --- whatever the bytes are ---


def compiled(file: FileDescriptorProto) -> Schema:
    return Schema("PROTOBUF", base64.b64encode(file.SerializeToString()).decode())


WHOLE = Schema("PROTOBUF", compiled(ORDERS).text, (("shared.proto", compiled(SHARED)),))
FIXED = Decoder(schemas=Fixed(ProtobufCodec(WHOLE)))


@settings(max_examples=200, deadline=None)
@given(garbage=st.binary(max_size=200), kept=st.integers(0, 40))
def test_garbage_is_a_bad_message_and_nothing_else(garbage: bytes, kept: int) -> None:
    good = ORDER + order(order_id="a", kind=1, lines=[{"n": 1}], raw=b"abc").SerializeToString()
    expected = {None, "bad_protobuf", "nul_character", "too_deep", "number_out_of_range"}
    assert {reason_of(FIXED, b) for b in (garbage, ORDER + garbage, good[:kept] + garbage)} <= expected


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
