"""JSON Schema: bodies are read as strictly as any JSON, and then must fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hammerwork.clients.schemas.reading import FileReader
from hammerwork.core.errors import BadMessage, Misconfigured
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.message import Message

from .bodies import decoder_of, framed, read, refusal
from .registry_server import RegistryServer

ORDER = {
    "type": "object",
    "required": ["id"],
    "properties": {"id": {"type": "integer"}, "at": {"type": "string", "format": "date"}},
}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"id": "a"}', "schema_violation"),
        (b"{}", "schema_violation"),
        (b'{"id": 1, "at": "yesterday"}', "schema_violation"),
        (b'{"id": NaN}', "not_finite"),
        (b'{"id": 1, "id": 2}', "duplicate_key"),
        (b'{"id": 1} x', "trailing_garbage"),
        (b"", "empty_body"),
        (b"[" * 100 + b"]" * 100, "too_deep"),
    ],
)
async def test_a_body_is_strict_json_and_fits(registry: RegistryServer, body: bytes, reason: str) -> None:
    schema_id = registry.json(ORDER)
    decoder = decoder_of(registry.url, "json_schema")
    assert await refusal(decoder, framed(schema_id, body)) == reason
    assert await read(decoder, framed(schema_id, b'{"id": 1, "at": "2026-01-02"}')) == {
        "id": 1,
        "at": "2026-01-02",
    }


async def test_references_lead_to_other_schemas_of_the_registry(registry: RegistryServer) -> None:
    registry.json({"$id": "http://shop.example/money.json", "type": "integer", "minimum": 0}, "money")
    order = {
        "properties": {"total": {"$ref": "money.json"}, "again": {"$ref": "http://shop.example/money.json"}}
    }
    schema_id = registry.json(order, "order", money__json="money")
    decoder = decoder_of(registry.url, "json_schema")
    for good, bad in ((b'{"total": 1}', b'{"total": -1}'), (b'{"again": 1}', b'{"again": -1}')):
        assert await read(decoder, framed(schema_id, good)) == json.loads(good)
        assert await refusal(decoder, framed(schema_id, bad)) == "schema_violation"


async def test_nothing_is_fetched_for_a_reference(registry: RegistryServer) -> None:
    schema_id = registry.json({"properties": {"a": {"$ref": f"{registry.url}/schemas/ids/1"}}})
    decoder = decoder_of(registry.url, "json_schema")
    assert await refusal(decoder, framed(schema_id, b'{"a": 1}')) == "unusable_schema"
    assert registry.asked == [f"GET /schemas/ids/{schema_id}"]


@pytest.mark.parametrize("schema", [{"type": "no such type"}, {"properties": []}, 5])
async def test_a_schema_that_is_none_is_told(registry: RegistryServer, schema: object) -> None:
    decoder = decoder_of(registry.url, "json_schema")
    assert await refusal(decoder, framed(registry.json(schema), b"{}")) == "unusable_schema"


def test_plain_json_must_fit_the_schema_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "order.json"
    path.write_text(json.dumps(ORDER))
    decoder = Decoder(schemas=FileReader(path, "json"))
    assert decoder.decode(Message(body=b' {"id": 1} ')).value == {"id": 1}
    with pytest.raises(BadMessage, match=r"schema_violation: \$\.id: 'a' is not of type 'integer'"):
        decoder.decode(Message(body=b'{"id": "a"}'))
    path.write_text('{"type": "no such type"}')
    with pytest.raises(Misconfigured, match="cannot be used"):
        FileReader(path, "json")
