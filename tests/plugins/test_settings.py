"""The extras as types that settings name: told by a file or variables, secrets masked, clients missing."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from hammerwork.core.errors import Misconfigured, MissingExtra
from hammerwork.gateway import catalog
from hammerwork.gateway.catalog import Kind
from hammerwork.gateway.parts import build_parts
from hammerwork.gateway.settings import load
from hammerwork.plugins.mqtt import MqttBridge, MqttOptions
from hammerwork.plugins.nats import NatsBridge, NatsOptions, NatsSink, NatsSinkOptions
from hammerwork.plugins.redis import RedisBridge, RedisOptions, RedisSink, RedisSinkOptions

TOML = """
[bridges.orders]
type = "redis"
url = "redis://user:secret-word@cache/2"
stream = "orders"
identity = { field = "id" }
lease = "90s"

[bridges.ships]
type = "nats"
url = "nats://bus"
token = "secret-word"
stream = "SHIPS"
identity = { header = "ship" }
key = "subject"

[bridges.plant]
type = "mqtt"
url = "mqtts://broker"
topics = ["plant/+/alarms"]
identity = { json = "/id" }

[sinks.log]
type = "redis"
url = "redis://cache"
stream = "events"
max_length = 1000

[sinks.bus]
type = "nats"
url = "nats://bus"
subject = "jobs.{queue}.{type}"
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "hw.toml"
    path.write_text(TOML)
    return path


def test_all_five_are_found_by_their_names_and_told_by_a_file(toml: Path) -> None:
    settings = load(toml, {"HAMMERWORK_BRIDGES__PLANT__SESSION_EXPIRY": "2d"})
    orders, ships, plant = (settings.bridges[name].options for name in ("orders", "ships", "plant"))
    assert isinstance(orders, RedisOptions)
    assert orders.lease == timedelta(seconds=90)
    assert isinstance(ships, NatsOptions)
    assert isinstance(plant, MqttOptions)
    assert (plant.topics, plant.session_expiry) == (("plant/+/alarms",), timedelta(days=2))
    parts = build_parts(settings)
    assert [type(parts.ingests[name].bridge) for name in ("orders", "ships", "plant")] == [
        RedisBridge, NatsBridge, MqttBridge,
    ]  # fmt: skip
    assert [type(parts.outlets[name].sink) for name in ("log", "bus")] == [RedisSink, NatsSink]
    assert "secret-word" not in repr(settings) + repr(parts)


def test_a_bridge_may_be_told_by_variables_alone(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("redis://:secret-word@cache")
    prefix = "HAMMERWORK_BRIDGES__ORDERS__"
    told = {"TYPE": "redis", "URL_FILE": str(secret), "STREAM": "orders", "BODY_FIELD": "body"}
    options = load(None, {prefix + name: value for name, value in told.items()}).bridges["orders"].options
    assert isinstance(options, RedisOptions)
    assert options.url.get_secret_value() == "redis://:secret-word@cache"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('stream = "orders"\nstart = "yesterday"', "start"),
        ('stream = "orders"\nlease = "1ms"', "lease"),
        ('stream = "orders"\nfield = "body"', "did you mean"),
        ("", "stream is missing"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "hw.toml"
    path.write_text(f'[bridges.orders]\ntype = "redis"\nurl = "redis://:secret-word@h"\n{line}\n')
    with pytest.raises(Misconfigured, match=words) as refused:
        load(path, {})
    assert "secret-word" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "told", "client"),
    [
        (catalog.bridges.find("redis"), {"url": "redis://h", "stream": "s"}, "redis"),
        (catalog.sinks.find("redis"), {"url": "redis://h", "stream": "s"}, "redis"),
        (catalog.bridges.find("nats"), {"url": "nats://h", "stream": "s"}, "nats"),
        (catalog.sinks.find("nats"), {"url": "nats://h", "subject": "s"}, "nats"),
        (catalog.bridges.find("mqtt"), {"url": "mqtt://h", "topics": ["t"]}, "paho"),
    ],
    ids=["redis bridge", "redis sink", "nats bridge", "nats sink", "mqtt bridge"],
)
def test_a_client_that_is_not_installed_is_missed_when_one_is_made(
    monkeypatch: pytest.MonkeyPatch, kind: Kind[Any], told: dict[str, Any], client: str
) -> None:
    link = f"hammerwork.plugins.{kind.name}.link"
    for module in [name for name in sys.modules if name.partition(".")[0] == client or name == link]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, client, None)
    with pytest.raises(MissingExtra, match=f"needs the extra `{kind.name}`"):
        kind.build("one", kind.options.model_validate(told))


@pytest.mark.parametrize(
    "options", [RedisOptions, RedisSinkOptions, NatsOptions, NatsSinkOptions, MqttOptions]
)
def test_every_option_is_explained_and_documented(options: type[BaseModel]) -> None:
    page = (Path(__file__).parents[2] / "docs/plugins.md").read_text(encoding="utf-8")
    for name, field in options.model_fields.items():
        assert name == "tls" or field.description, name
        assert f"| `{name}` |" in page or name == "tls", name
