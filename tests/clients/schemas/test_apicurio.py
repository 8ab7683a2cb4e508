"""A registry that is not ours: what producers register there is read, what we register there is found."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import aiohttp
import pytest

from hammerwork.clients.schemas.encoding import EventEncoder, subject_of
from hammerwork.clients.schemas.options import RegistryOptions
from hammerwork.clients.schemas.registry import Registry
from hammerwork.clients.schemas.schema import Schema
from hammerwork.core.errors import Misconfigured

from ...services import ServiceMissing
from ...services.registry import RegistryService, find_registry
from .bodies import avro, decoder_of, framed, read, refusal
from .test_avro import EVERYTHING, READ, VALUE
from .test_encoding import EVENT, Logged
from .test_protobuf import ORDER, ORDERS, SHARED, order

pytestmark = pytest.mark.timeout(600)  # the first run fetches it
DRAFT = "http://json-schema.org/draft-07/schema#"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    try:
        service: RegistryService = find_registry()
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    yield service.url
    service.close()


async def registered(url: str, subject: str, language: str, schema: str, **names: str) -> int:
    """As a producer registers: `names` are the subjects of what the schema refers to."""
    references = [
        {"name": name.replace("__", "."), "subject": subject, "version": 1} for name, subject in names.items()
    ]
    body = {"schemaType": language, "schema": schema, "references": references}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/subjects/{subject}/versions", json=body) as response,
    ):
        answer: dict[str, Any] = await response.json()
        return int(answer["id"])


def compiled(file: Any) -> str:
    return base64.b64encode(file.SerializeToString()).decode()


async def test_avro_with_a_reference_is_read(url: str) -> None:
    decoder = decoder_of(url, "avro")
    everything = await registered(url, "everything", "AVRO", json.dumps(EVERYTHING))
    assert await read(decoder, framed(everything, avro(EVERYTHING, VALUE))) == READ
    money = {"type": "record", "name": "shop.Money", "fields": [{"name": "cents", "type": "long"}]}
    await registered(url, "money", "AVRO", json.dumps(money))
    bill = {"type": "record", "name": "shop.Bill", "fields": [{"name": "total", "type": "shop.Money"}]}
    schema_id = await registered(url, "bill", "AVRO", json.dumps(bill), shop__Money="money")
    assert await read(decoder, framed(schema_id, b"\x04")) == {"total": {"cents": 2}}
    assert await refusal(decoder, framed(999_999, b"")) == "unknown_schema"


async def test_protobuf_with_a_reference_is_read(url: str) -> None:
    await registered(url, "shared", "PROTOBUF", compiled(SHARED))
    schema_id = await registered(url, "orders", "PROTOBUF", compiled(ORDERS), shared__proto="shared")
    body = framed(schema_id, ORDER + order(order_id="a", kind=1).SerializeToString())
    found = await read(decoder_of(url, "protobuf"), body)
    assert (found["orderId"], found["kind"]) == ("a", "OLD")


async def test_protobuf_as_source_is_compiled_or_holds(url: str) -> None:
    source = 'syntax = "proto3"; package shop; message Order { string id = 1; }'
    schema_id = await registered(url, "source", "PROTOBUF", source)
    reading = read(decoder_of(url, "protobuf"), framed(schema_id, b"\0\x0a\x01a"))
    if find_spec("grpc_tools") is None:
        with pytest.raises(Misconfigured, match="as source"):
            await reading
    else:
        assert await reading == {"id": "a"}


async def test_json_with_a_reference_is_checked(url: str) -> None:
    await registered(url, "cents", "JSON", json.dumps({"$schema": DRAFT, "type": "integer", "minimum": 0}))
    bill = {"$schema": DRAFT, "type": "object", "properties": {"total": {"$ref": "cents.json"}}}
    schema_id = await registered(url, "json-bill", "JSON", json.dumps(bill), cents__json="cents")
    decoder = decoder_of(url, "json_schema")
    assert await read(decoder, framed(schema_id, b'{"total": 1}')) == {"total": 1}
    assert await refusal(decoder, framed(schema_id, b'{"total": -1}')) == "schema_violation"


async def test_events_are_registered_found_and_read(url: str) -> None:
    subject = subject_of(f"jobs.{secrets.token_hex(4)}")
    registry = Registry(RegistryOptions(url=url))
    with pytest.raises(Misconfigured, match="not registered under"):
        await EventEncoder(registry, subject, auto_register=False).open()
    bodies = []
    for auto_register in (True, True, False):
        encoder = EventEncoder(registry, subject, auto_register=auto_register)
        await encoder.open()
        bodies.append(encoder.value(Logged()))
    assert len(set(bodies)) == 1
    assert (await read(decoder_of(url, "avro"), bodies[0]))["id"] == str(EVENT)


async def test_what_it_refuses_and_what_is_no_registry_is_told(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"refuses a schema \(422\)"):
        await Registry(RegistryOptions(url=url)).register("broken", Schema("AVRO", "{"))
    with pytest.raises(Misconfigured, match="does not answer as a schema registry"):
        await Registry(RegistryOptions(url=url.removesuffix("/apis/ccompat/v7"))).schema(1)
