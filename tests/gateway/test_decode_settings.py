"""`[bridges.NAME.decode]`: which schemas a format takes, and what is built of them."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest

from hammerwork.core.errors import BadMessage, Misconfigured
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.message import Message
from hammerwork.gateway.app import Gateway
from hammerwork.gateway.parts import build_parts
from hammerwork.gateway.settings import Settings, load

from ..clients.schemas.bodies import framed
from ..clients.schemas.registry_server import RegistryServer, served
from ..core.running import running, until

TOKEN = "a-token-of-decent-length"
BRIDGE = f"""
[bridges.orders]
type = "http"
token = "{TOKEN}"
[bridges.orders.decode]
"""
REGISTRY = """
[bridges.orders.decode.registry]
url = "http://127.0.0.1:1"
"""


def settings_of(path: Path, text: str, env: dict[str, str] | None = None) -> Settings:
    file = path / "hw.toml"
    file.write_text(BRIDGE + text)
    return load(file, env or {})


def decoder_of(settings: Settings) -> Decoder:
    return build_parts(settings).ingests["orders"].decoder


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("format = 'avro'", "needs a registry or a schema_file"),
        ("format = 'protobuf'", "needs a registry"),
        ("format = 'json_schema'", "needs a registry"),
        ("format = 'protobuf'\nschema_file = 'a'" + REGISTRY, "takes no schema_file"),
        ("format = 'avro'\nschema_file = 'a'" + REGISTRY, "not both"),
        ("format = 'json'" + REGISTRY, "takes no registry"),
        ("format = 'text'\nschema_file = 'a'", "takes no schema_file"),
        ("format = 'xml'", "'avro'"),
        ("format = 'avro'" + REGISTRY + "username = 'u'", "go together"),
        ("format = 'avro'" + REGISTRY + "user = 'u'", "username"),
        ("format = 'avro'\n[bridges.orders.decode.registry]\nurl = 'registry:8081'", "http:// or https://"),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        settings_of(tmp_path, text)
    assert "bridges.orders.decode" in str(refused.value)
    assert says in str(refused.value)


@pytest.mark.parametrize("format", ["avro", "protobuf", "json_schema"])
async def test_a_format_of_the_registry_reads_by_it(tmp_path: Path, format: str) -> None:
    decoder = decoder_of(settings_of(tmp_path, f"format = '{format}'" + REGISTRY))
    with pytest.raises(BadMessage, match="no_schema_id"):
        decoder.decode(Message(body=b"{}"))


def test_a_secret_of_the_registry_comes_from_a_file_and_is_masked(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    text = f"format = 'avro'{REGISTRY}username = 'us'\npassword_file = '{tmp_path / 'secret'}'"
    settings = settings_of(tmp_path, text)
    registry = settings.bridges["orders"].decode.registry
    assert registry is not None
    assert registry.password is not None
    assert registry.password.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(settings) + "".join(f"{source}" for source in settings.sources())


def test_the_registry_may_come_from_variables(tmp_path: Path) -> None:
    env = {
        "HAMMERWORK_BRIDGES__ORDERS__DECODE__FORMAT": "avro",
        "HAMMERWORK_BRIDGES__ORDERS__DECODE__REGISTRY__URL": "https://registry",
        "HAMMERWORK_BRIDGES__ORDERS__DECODE__REGISTRY__TOKEN": "t",
        "HAMMERWORK_BRIDGES__ORDERS__DECODE__REGISTRY__TIMEOUT": "3s",
    }
    registry = settings_of(tmp_path, "", env).bridges["orders"].decode.registry
    assert registry is not None
    assert (registry.url, registry.timeout.total_seconds()) == ("https://registry", 3)


def test_json_must_fit_the_schema_of_a_file(tmp_path: Path) -> None:
    schema = tmp_path / "order.json"
    schema.write_text(json.dumps({"required": ["id"]}))
    decoder = decoder_of(settings_of(tmp_path, f"schema_file = '{schema}'"))
    assert decoder.decode(Message(body=b'{"id": 1}')).value == {"id": 1}
    with pytest.raises(BadMessage, match="schema_violation"):
        decoder.decode(Message(body=b"{}"))
    schema.unlink()
    with pytest.raises(Misconfigured, match=r"bridges\.orders: decode\.schema_file .* cannot be used"):
        decoder_of(settings_of(tmp_path, f"schema_file = '{schema}'"))


async def test_avro_comes_in_by_http_as_by_any_bridge(tmp_path: Path, dsn: str) -> None:
    async with served(RegistryServer()) as registry:
        schema_id = registry.avro("string")
        env = {
            "HAMMERWORK_DATABASE_URL": dsn,
            "HAMMERWORK_HTTP__PORT": "0",
            "HAMMERWORK_BRIDGES__ORDERS__DECODE__FORMAT": "avro",
            "HAMMERWORK_BRIDGES__ORDERS__DECODE__REGISTRY__URL": registry.url,
        }
        gateway = Gateway(settings_of(tmp_path, "", env))
        async with running(gateway), aiohttp.ClientSession() as session:
            await until(lambda: _is_open(gateway))
            answers = []
            for body in (framed(schema_id, b"\x04ab"), framed(schema_id, b"\x04a"), framed(9, b"")):
                async with session.post(
                    f"{gateway.address}/in/orders",
                    data=body,
                    headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/octet-stream"},
                ) as response:
                    answers.append((response.status, await response.json()))
            payloads = [job.payload for job in await gateway.queue.jobs()]
    assert [status for status, _ in answers] == [202, 422, 422]
    assert ["bad_avro" in str(answers[1]), "unknown_schema" in str(answers[2])] == [True, True]
    assert payloads == ["ab"]


async def _is_open(gateway: Gateway) -> bool:
    return gateway.intakes["orders"].status.state == "running"
