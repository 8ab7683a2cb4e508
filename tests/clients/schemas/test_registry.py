"""The registry: what each of its answers means, and that no secret of ours gets into a line of text."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr, ValidationError

from hammerwork.clients.schemas.options import RegistryOptions
from hammerwork.clients.schemas.registry import Registry
from hammerwork.clients.schemas.schema import Schema
from hammerwork.core.errors import BadMessage, Misconfigured, Unavailable
from hammerwork.core.message import Message

from ...services import free_port
from .bodies import avro, decoder_of, framed, read, refusal
from .registry_server import RegistryServer, Version, basic, served

NO_REGISTRY = "does not answer as a schema registry"
STRING = Schema("AVRO", '"string"')


def registry_of(url: str, **options: Any) -> Registry:
    return Registry(RegistryOptions(url=url, **options))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no_schema_id"),
        (b"\0\0\0\0", "no_schema_id"),
        (b'{"id": 1}', "no_schema_id"),
        (framed(99, b"x"), "unknown_schema"),
        (framed(2**32 - 1, b"x"), "unknown_schema"),
    ],
)
async def test_a_body_names_a_schema_that_there_is(
    registry: RegistryServer, body: bytes, reason: str
) -> None:
    assert await refusal(decoder_of(registry.url, "avro"), body) == reason


async def test_a_schema_of_another_language_is_no_schema_for_this_bridge(registry: RegistryServer) -> None:
    schema_id = registry.json({})
    assert await refusal(decoder_of(registry.url, "avro"), framed(schema_id, b"{}")) == "wrong_schema_type"


async def test_an_unknown_id_is_asked_for_again_but_not_for_each_message(
    registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = decoder_of(registry.url, "avro")
    body = framed(1, avro("string", "a"))
    assert await refusal(decoder, body) == await refusal(decoder, body) == "unknown_schema"
    assert len(registry.asked) == 1
    monkeypatch.setattr("hammerwork.clients.schemas.reading.REMEMBERED", 0.0)
    other = decoder_of(registry.url, "avro")
    assert await refusal(other, body) == "unknown_schema"
    registry.avro("string")
    assert await read(other, body) == "a"


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (web.Response(status=500), Unavailable, "answers 500"),
        (web.Response(status=503), Unavailable, "answers 503"),
        (web.Response(status=429), Unavailable, "answers 429"),
        (web.Response(status=401), Misconfigured, "refuses us"),
        (web.Response(status=403), Misconfigured, "refuses us"),
        (
            web.Response(status=404, text="no such page"),
            Misconfigured,
            NO_REGISTRY,
        ),
        (web.Response(status=404, text="{}"), Misconfigured, NO_REGISTRY),
        (web.Response(status=302), Misconfigured, NO_REGISTRY),
        (web.Response(text="<html>Welcome"), Misconfigured, NO_REGISTRY),
        (web.Response(text="[]"), Misconfigured, NO_REGISTRY),
        (web.Response(text='{"schema": 5}'), Misconfigured, NO_REGISTRY),
        (web.Response(text="[" * 100_000), Misconfigured, NO_REGISTRY),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_the_registrys_fault_holds_and_blames_no_message(
    registry: RegistryServer, fault: web.Response, error: type[Exception], says: str
) -> None:
    schema_id = registry.avro("string")
    decoder = decoder_of(registry.url, "avro")
    body = framed(schema_id, avro("string", "a"))
    registry.fault = fault
    with pytest.raises(error, match=says):
        await read(decoder, body)
    registry.fault = None
    assert await read(decoder, body) == "a"


async def test_a_registry_that_is_away_or_slow_holds() -> None:
    server = RegistryServer()
    port = free_port()
    schema_id = server.avro("string")
    body = framed(schema_id, avro("string", "a"))
    decoder = decoder_of(f"http://127.0.0.1:{port}", "avro", timeout=0.2)
    with pytest.raises(Unavailable, match="is away"):
        await read(decoder, body)
    async with served(server, port):
        server.slow = 60
        with pytest.raises(Unavailable, match="no answer in time"):
            await read(decoder, body)
        server.slow = 0
        assert await read(decoder, body) == "a"
    assert await read(decoder, body) == "a"  # it is away again, and not needed


async def test_an_answer_has_a_limit(registry: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hammerwork.clients.schemas.registry.LARGEST_ANSWER", 1000)
    schema_id = registry.avro({"type": "enum", "name": "E", "symbols": [f"S{n}" for n in range(1000)]})
    with pytest.raises(Misconfigured, match=NO_REGISTRY):
        await read(decoder_of(registry.url, "avro"), framed(schema_id, b"\0"))


async def test_references_in_a_circle_or_to_nothing_are_told(registry: RegistryServer) -> None:
    decoder = decoder_of(registry.url, "avro")
    circle = registry.avro({"type": "array", "items": "a"}, "a", a="a")
    nothing = registry.avro({"type": "array", "items": "b"}, "c", b="no_such_subject")
    for schema_id, why in ((circle, "UnknownType"), (nothing, "lacks")):
        with pytest.raises(BadMessage, match=f"unusable_schema: schema {schema_id}: .*{why}"):
            await read(decoder, framed(schema_id, b"\0"))


async def test_a_message_that_was_not_announced_waits(registry: RegistryServer) -> None:
    with pytest.raises(Unavailable):
        decoder_of(registry.url, "avro").decode(Message(body=framed(1, b"")))


# --- who we are ---


async def test_a_user_or_a_token_is_shown(registry: RegistryServer) -> None:
    registry.avro("string")
    registry.login = basic("us", "se:cret")
    ours = registry_of(registry.url, username="us", password=SecretStr("se:cret"))
    assert await ours.schema(1) == STRING
    registry.login = "Bearer secret"
    assert await registry_of(registry.url, token=SecretStr("secret")).schema(1) == STRING
    with pytest.raises(Misconfigured, match="refuses us") as refused:
        await ours.schema(1)
    assert "cret" not in f"{refused.value} {refused.value.hint} {vars(ours).get('url')}"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "ftp://registry"}, "http:// or https://"),
        ({"url": "http://"}, "http:// or https://"),
        ({"url": "http://registry?x=1"}, "http:// or https://"),
        ({"url": "http://us:secret@registry"}, "must not hold a user or password"),
        ({"url": "http://registry", "username": "us"}, "go together"),
        ({"url": "http://registry", "username": "u", "password": "secret", "token": "secret"}, "not both"),
        ({"url": "http://registry", "timeout": timedelta(0)}, "greater than"),
    ],
)
def test_options_that_cannot_work_are_refused_without_their_secrets(
    options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValidationError, match=says) as refused:
        RegistryOptions(**options)
    assert "secret" not in str(refused.value)


def test_tls_files_must_be_there() -> None:
    with pytest.raises(Misconfigured, match="TLS files"):
        registry_of("https://registry", tls={"ca_file": "/no/such/file"})


# --- schemas of ours ---


async def test_a_schema_is_registered_once_and_found(registry: RegistryServer) -> None:
    ours = registry_of(registry.url)
    assert await ours.find("jobs-value", STRING) is None
    schema_id = await ours.register("jobs-value", STRING)
    assert await ours.register("jobs-value", STRING) == await ours.find("jobs-value", STRING) == schema_id
    registry.incompatible.add("jobs-value")
    with pytest.raises(Misconfigured, match=r"refuses a schema \(409\): .*incompatible"):
        await ours.register("jobs-value", Schema("AVRO", '"int"'))


async def test_subjects_of_any_name_are_asked_for(registry: RegistryServer) -> None:
    registry.add(Version('"string"', "AVRO"), "a b/c")
    assert await registry_of(registry.url).find("a b/c", STRING) == 1


async def test_one_reader_serves_many_at_once(registry: RegistryServer) -> None:
    decoder = decoder_of(registry.url, "avro")
    schemas = [{"type": "enum", "name": f"E{n}", "symbols": ["A"]} for n in range(20)]
    bodies = [framed(registry.avro(schema), b"\0") for schema in schemas]
    assert await asyncio.gather(*(read(decoder, body) for body in bodies)) == ["A"] * 20


async def test_bad_references_of_a_schema_blame_it_alone(registry: RegistryServer) -> None:
    registry.versions.append(Version(json.dumps("string"), "AVRO", ({"name": "a"},)))
    with pytest.raises(Misconfigured, match="a reference without name"):
        await registry_of(registry.url).schema(1)
    registry.versions.append(Version("{", "AVRO"))
    decoder = decoder_of(registry.url, "avro")
    message = Message(body=framed(2, b""))
    await decoder.ready([message])
    with pytest.raises(BadMessage, match="unusable_schema: schema 2: JSONDecodeError"):
        decoder.decode(message)
