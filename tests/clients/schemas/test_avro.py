"""Avro: what becomes of every type, and that no bytes bring down more than their own message."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form
from hypothesis import given, settings
from hypothesis import strategies as st

from hammerwork.clients.schemas.avro import AvroCodec
from hammerwork.clients.schemas.reading import FileReader
from hammerwork.clients.schemas.schema import Schema
from hammerwork.core.errors import BadMessage, Misconfigured
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.message import Message

from .bodies import Fixed, avro, decoder_of, framed, read, reason_of, refusal
from .registry_server import RegistryServer


def record(*fields: tuple[str, Any]) -> dict[str, Any]:
    return {
        "type": "record",
        "name": "Order",
        "fields": [{"name": name, "type": kind} for name, kind in fields],
    }


def logical(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


EVERYTHING = record(
    ("id", logical("string", "uuid")),
    ("total", logical("bytes", "decimal", precision=12, scale=2)),
    ("at", logical("long", "timestamp-micros")),
    ("seen", logical("long", "local-timestamp-millis")),
    ("day", logical("int", "date")),
    ("hour", logical("int", "time-millis")),
    ("raw", "bytes"),
    ("hash", {"type": "fixed", "name": "Hash", "size": 2}),
    ("kind", {"type": "enum", "name": "Kind", "symbols": ["NEW", "OLD"]}),
    ("note", ["null", "string"]),
    ("lines", {"type": "array", "items": record(("n", "int")) | {"name": "Line"}}),
    ("tags", {"type": "map", "values": "long"}),
    ("share", "double"),
)
VALUE = {
    "id": UUID(int=7),
    "total": Decimal("-12.30"),
    "at": datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
    "seen": datetime(2026, 1, 2, 3, 4, 5),
    "day": date(2026, 1, 2),
    "hour": time(3, 4, 5),
    "raw": b"\x00\xff",
    "hash": b"ab",
    "kind": "OLD",
    "note": None,
    "lines": [{"n": 1}, {"n": 2}],
    "tags": {"é": 2**63 - 1},
    "share": 0.5,
}
READ = {
    "id": "00000000-0000-0000-0000-000000000007",
    "total": "-12.30",
    "at": "2026-01-02T03:04:05.678901Z",
    "seen": "2026-01-02T03:04:05",
    "day": "2026-01-02",
    "hour": "03:04:05",
    "raw": {"base64": "AP8="},
    "hash": {"base64": "YWI="},
    "kind": "OLD",
    "note": None,
    "lines": [{"n": 1}, {"n": 2}],
    "tags": {"é": 2**63 - 1},
    "share": 0.5,
}
LIST = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}


async def test_every_type_has_its_json_form(registry: RegistryServer) -> None:
    schema_id = registry.avro(EVERYTHING)
    decoder = decoder_of(registry.url, "avro")
    assert await read(decoder, framed(schema_id, avro(EVERYTHING, VALUE))) == READ


async def test_a_schema_is_asked_for_once(registry: RegistryServer) -> None:
    schema_id = registry.avro("string")
    decoder = decoder_of(registry.url, "avro")
    bodies = [framed(schema_id, avro("string", text)) for text in "abc"]
    await decoder.ready([Message(body=body) for body in bodies])
    assert [decoder.decode(Message(body=body)).value for body in bodies] == ["a", "b", "c"]
    assert await read(decoder, bodies[0]) == "a"
    assert registry.asked == [f"GET /schemas/ids/{schema_id}"]


async def test_references_are_resolved_through_one_another(registry: RegistryServer) -> None:
    money = record(("cents", "long")) | {"name": "shop.Money"}
    line = record(("price", "shop.Money")) | {"name": "shop.Line"}
    registry.avro(money, "money")
    registry.deleted.add("money")
    registry.avro(line, "line", shop__Money="money")
    order = record(("line", "shop.Line"), ("total", "shop.Money"))
    schema_id = registry.avro(order, "order", shop__Line="line", shop__Money="money")
    body = b"\x02\x04"  # 1 and 2 as zigzag varints
    read_order = await read(decoder_of(registry.url, "avro"), framed(schema_id, body))
    assert read_order == {"line": {"price": {"cents": 1}}, "total": {"cents": 2}}


async def test_trees_are_read(registry: RegistryServer) -> None:
    tree = record(("name", "string"), ("children", {"type": "array", "items": "Order"}))
    value = {"name": "a", "children": [{"name": "b", "children": []}, {"name": "c", "children": []}]}
    bare = record(("children", {"type": "array", "items": "Order"}))
    decoder = decoder_of(registry.url, "avro")
    assert await read(decoder, framed(registry.avro(tree), avro(tree, value))) == value
    assert await read(decoder, framed(registry.avro(bare), b"\x02\x00\x00")) == {
        "children": [{"children": []}]
    }


async def test_compressed_bodies_are_unpacked_first(registry: RegistryServer) -> None:
    import gzip

    body = gzip.compress(framed(registry.avro("string"), avro("string", "a")))
    assert await read(decoder_of(registry.url, "avro"), body, content_encoding="gzip") == "a"


@pytest.mark.parametrize(
    ("schema", "body", "reason"),
    [
        ("string", avro("string", "abc")[:-1], "bad_avro"),
        ("string", avro("string", "abc") + b"x", "bad_avro"),
        ("string", b"\x04\xff\xfe", "bad_avro"),
        ("string", avro("string", "a\0b"), "nul_character"),
        ("string", b"", "bad_avro"),
        ("double", avro("double", float("nan")), "not_finite"),
        ("float", avro("float", float("-inf")), "not_finite"),
        (logical("long", "timestamp-millis"), avro("long", 2**62), "bad_avro"),
        (["null", "string"], b"\x08", "bad_avro"),
        (LIST, b"\x02" * 500_000 + b"\x00", "too_deep"),
        (LIST, b"\x02" * 70 + b"\x00", "too_deep"),
        ({"type": "array", "items": "null"}, b"\xfe\xff\xff\xff\x0f\x00", "unusable_schema"),
        ({"type": "array", "items": record(("a", "null"))}, b"\xfe\xff\xff\xff\x0f\x00", "unusable_schema"),
        ({"type": "no such thing"}, b"", "unusable_schema"),
    ],
)  # fmt: skip
async def test_bad_bodies_and_schemas_have_their_reason(
    registry: RegistryServer, schema: Any, body: bytes, reason: str
) -> None:
    decoder = decoder_of(registry.url, "avro")
    assert await refusal(decoder, framed(registry.avro(schema), body)) == reason


async def test_limits_hold_for_what_comes_out(registry: RegistryServer) -> None:
    """Two bytes a record become forty."""
    schema = {"type": "array", "items": record(("a_long_name_of_a_field_that_is_repeated", "int"))}
    value = [{"a_long_name_of_a_field_that_is_repeated": n} for n in range(50)]
    body = framed(registry.avro(schema), avro(schema, value))
    assert len(body) < 100
    assert await refusal(decoder_of(registry.url, "avro", max_bytes=500), body) == "too_large"
    assert await refusal(decoder_of(registry.url, "avro", max_depth=1), body) == "too_deep"
    assert await read(decoder_of(registry.url, "avro"), body) == value


CODECS = [
    AvroCodec(Schema("AVRO", json.dumps(schema)))
    for schema in (EVERYTHING, LIST, {"type": "array", "items": {"type": "map", "values": ["int", "bytes"]}})
]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(CODECS), st.binary(max_size=200), st.integers(0, 60))
def test_garbage_is_a_bad_message_and_nothing_else(codec: AvroCodec, garbage: bytes, kept: int) -> None:
    good = avro(EVERYTHING, VALUE)
    expected = {None, "bad_avro", "not_finite", "too_deep", "nul_character", "too_large"}
    assert {reason_of(Decoder(schemas=Fixed(codec)), b) for b in (garbage, good[:kept] + garbage)} <= expected


# --- a schema from a file ---


def test_bare_and_single_object_bodies_are_read_by_a_schema_file(tmp_path: Path) -> None:
    schema = record(("n", "int"))
    (tmp_path / "order.avsc").write_text(json.dumps(schema))
    decoder = Decoder(schemas=FileReader(tmp_path / "order.avsc", "avro"))
    bare = avro(schema, {"n": 5})
    mark = fingerprint(to_parsing_canonical_form(fastavro.parse_schema(schema)), "CRC-64-AVRO")
    assert decoder.decode(Message(body=bare)).value == {"n": 5}
    assert decoder.decode(Message(body=b"\xc3\x01" + bytes.fromhex(mark) + bare)).value == {"n": 5}
    with pytest.raises(BadMessage, match="bad_avro"):
        decoder.decode(Message(body=b"\xc3\x01" + bytes(8) + bare))


@pytest.mark.parametrize("content", [None, "{", '{"type": "order"}'])
def test_a_schema_file_that_cannot_be_used_is_told(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "order.avsc"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Misconfigured, match=r"decode\.schema_file .*order\.avsc' cannot be used"):
        FileReader(path, "avro")


def test_a_fingerprint_is_written_as_the_specification_says() -> None:
    """The byte order of CRC-64-AVRO in single-object encoding is little-endian."""
    schema = fastavro.parse_schema("int")
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, 1)
    assert fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO") == "8f5c393f1ad57572"
