"""What `config env` and `config schema` say of the settings is what the settings take."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

from hammerwork.core.errors import Misconfigured
from hammerwork.gateway.settings import Settings, load
from hammerwork.gateway.settings.described import ANY_NAME, Described, tables
from hammerwork.gateway.settings.env_file import example, what_is_set
from hammerwork.gateway.settings.everything import NAMED, OPTIONS
from hammerwork.gateway.settings.json_schema import SettingsSchema, file_schema
from hammerwork.gateway.settings.masking import MASK
from hammerwork.gateway.settings.shape import keys_of
from hammerwork.gateway.settings.spelling import as_variable
from hammerwork.gateway.settings.variables import Place

ROOT = Path(__file__).parents[2]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FULL = """
[database]
url = "postgresql://ana:hush-hush@db:5432/shop"
patience = "1m30s"

[http]
port = 9000
token = "hush-hush-hush-hush"

[worker]
queues = ["orders", "mail"]
poll = 0.25

[bridges.orders]
type = "rabbitmq"
url = "amqp://ana:hush-hush@broker/"
queue = "orders"
declare = "create"
arguments = { x-max-length = 10 }
exchange = { name = "shop" }
bindings = [{ exchange = "shop", routing_key = "orders.#" }, { exchange = "shop", routing_key = "a,b" }]
identity = { json = "/id" }

[bridges.orders.tls]

[bridges.orders.map]
priority = "body.vip ? 'high' : 'normal'"

[bridges.orders.batch]
size = "1500000"

[bridges.shop]
type = "http"
token = "hush-hush-hush-hush"
max_body = "64KiB"
signature = { scheme = "github", secrets = ["hush-hush"] }

[sinks.crm]
type = "webhook"
url = "https://crm.example.com/hush-hush"
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
events = ["job.dead", "job.c*"]
retry = ["5s", "1h30m"]
headers = { x-tenant = "a" }
"""


def described() -> dict[Place, Described]:
    return {s.place: s for table in tables() for s in table.settings if not s.is_table}


def given_lines(text: Iterator[str]) -> dict[str, str]:
    """What a tool that reads .env files takes from these lines."""
    lines = [line for line in text if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


# --- the variables -------------------------------------------------------------------------------


def leaves(settings: BaseModel) -> dict[Place, object]:
    assert isinstance(settings, Settings)
    return {place: value for place, value, _ in settings.values()}


def test_every_setting_that_has_a_value_is_described() -> None:
    env = {"HAMMERWORK_RABBITMQ_URL": "amqp://b/", "HAMMERWORK_RABBITMQ_QUEUE": "q",
           "HAMMERWORK_WEBHOOK_URL": "https://x.example.com", "HAMMERWORK_WEBHOOK_SECRET": SECRET,
           "HAMMERWORK_BRIDGES__HTTP__TYPE": "http"}  # fmt: skip
    known = described()
    for place in leaves(load(None, env)):
        places = (place, (place[0], ANY_NAME, *place[2:]))
        # An optional table that is not there is one value; what it may hold is described.
        assert any(here == there[: len(here)] for here in places for there in known), place


@pytest.mark.parametrize("section", [key for key in Settings.model_fields if key not in NAMED])
def test_the_defaults_of_the_variables_are_those_of_the_settings(section: str) -> None:
    env = {
        setting.variable: as_variable(setting.default)
        for place, setting in described().items()
        if place[0] == section
    }
    assert leaves(load(None, env)) == leaves(Settings())


@pytest.mark.parametrize("section", NAMED)
def test_defaults_of_bridges_and_sinks_are_those_of_their_variables(section: str) -> None:
    required = {
        "rabbitmq": {"url": "amqp://b/", "queue": "q"},
        "http": {},
        "webhook": {"url": "https://x.example.com", "secrets": SECRET},
    }
    for table in tables():
        if table.place[0] != section or table.kind not in required:
            continue
        start = f"HAMMERWORK_{section.upper()}__X__"
        least = {start + "TYPE": table.kind}
        least |= {start + key.upper(): value for key, value in required[table.kind].items()}
        common = next(t for t in tables() if t.place == (section, ANY_NAME))
        given = leaves(load(None, least)).items()
        absent = {place[2:] for place, value in given if value is None and place[0] == section}
        spelled = {
            start + "__".join(setting.place[2:]).upper(): spelled_default
            for setting in (*common.settings, *table.settings)
            if (spelled_default := as_variable(setting.default))
            and not setting.is_table
            and not any(setting.place[2 : 2 + len(there)] == there for there in absent)
        }
        assert len(spelled) > 8
        assert leaves(load(None, least | spelled)) == leaves(load(None, least))


def test_the_example_is_comments_alone_and_names_every_setting_once() -> None:
    lines = list(example())
    assert all(not line or line.startswith("#") for line in lines)
    named = [line[1:].partition("=")[0] for line in lines if re.match(r"#HAMMERWORK_", line)]
    assert len(named) == len(set(named))
    assert {setting.variable for setting in described().values()} <= set(named)
    text = "\n".join(lines)
    assert (
        "# whole number, at least 0, at most 65535. 0 takes a free port.\n#HAMMERWORK_HTTP__PORT=8080" in text
    )
    assert "# required, secret. amqp:// or amqps://" in text
    assert "#HAMMERWORK_BRIDGES__KAFKA__TLS__CA_FILE=" in lines, "of a table that may also be a word"
    assert '# --- [bridges.rabbitmq] with type = "rabbitmq": How to reach a queue' in text


def test_what_is_set_can_be_set_again_without_its_secrets(tmp_path: Path) -> None:
    file = tmp_path / "hammerwork.toml"
    file.write_text(FULL)
    settings = load(file, {"HAMMERWORK_HTTP__PORT": "9001"})
    lines = list(what_is_set(settings))
    assert "hush-hush" not in "\n".join(lines)
    assert SECRET not in "\n".join(lines)
    assert "HAMMERWORK_HTTP__PORT=9001" in lines
    secrets = {line[1:].partition("=")[0] for line in lines if line.endswith(f"={MASK}")}
    assert "HAMMERWORK_DATABASE_URL" in secrets
    assert "HAMMERWORK_BRIDGES__SHOP__SIGNATURE__SECRETS" in secrets
    filled = {
        "HAMMERWORK_DATABASE_URL": "postgresql://ana:hush-hush@db:5432/shop",
        "HAMMERWORK_HTTP__TOKEN": "hush-hush-hush-hush",
        "HAMMERWORK_BRIDGES__ORDERS__URL": "amqp://ana:hush-hush@broker/",
        "HAMMERWORK_BRIDGES__SHOP__TOKEN": "hush-hush-hush-hush",
        "HAMMERWORK_BRIDGES__SHOP__SIGNATURE__SECRETS": "hush-hush",
        "HAMMERWORK_SINKS__CRM__URL": "https://crm.example.com/hush-hush",
        "HAMMERWORK_SINKS__CRM__SECRETS": SECRET,
        "HAMMERWORK_SINKS__CRM__HEADERS": '{"x-tenant": "a"}',
    }
    assert secrets <= filled.keys()
    again = load(None, given_lines(iter(lines)) | {name: filled[name] for name in secrets})
    assert leaves(again) == leaves(settings)
    assert list(what_is_set(load(None, {}))) == []


@pytest.mark.parametrize("value", ["90s", "1500ms", "0.000001s", "100000.5s", "3650d"])
def test_durations_are_spelled_exactly(value: str) -> None:
    settings = load(None, {"HAMMERWORK_DATABASE__PATIENCE": value})
    spelled = as_variable(settings.database.patience)
    assert load(None, {"HAMMERWORK_DATABASE__PATIENCE": spelled}).database == settings.database


# --- the file ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return file_schema()


def faults(schema: dict[str, Any], text: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema)
    return [error.message for error in validator.iter_errors(tomllib.loads(text))]


def test_the_schema_is_one(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema
    assert "hush" not in json.dumps(schema)


def test_it_has_every_key_that_the_settings_take(schema: dict[str, Any]) -> None:
    for key, model in {k: f.annotation for k, f in Settings.model_fields.items() if k not in NAMED}.items():
        assert isinstance(model, type)
        properties = schema["$defs"][model.__name__]["properties"]
        assert keys_of(model).keys() <= properties.keys(), key
    for section, (common, kinds) in NAMED.items():
        for kind in kinds.names():
            made = schema["$defs"][f"{section}.{kind}"]["properties"]
            assert (keys_of(common).keys() | keys_of(kinds.find(kind).options).keys()) - {
                OPTIONS
            } <= made.keys()


def test_words_and_defaults_are_those_of_the_models(schema: dict[str, Any]) -> None:
    port = schema["$defs"]["HttpSettings"]["properties"]["port"]
    assert (port["description"], port["default"], port["maximum"]) == ("0 takes a free port.", 8080, 65_535)
    rabbitmq = schema["$defs"]["bridges.rabbitmq"]["properties"]
    assert rabbitmq["heartbeat"]["default"] == "20s"
    assert rabbitmq["dead_letter_bytes"]["default"] == "1MiB"
    assert rabbitmq["type"] == {"const": "rabbitmq"}


@pytest.mark.parametrize("page", ["docs/bridges.md", "docs/events.md", "docs/settings.md", "README.md"])
def test_files_of_the_documentation_fit_it(schema: dict[str, Any], page: str) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    for block in blocks:
        if re.search(r'^type = "', block, re.MULTILINE):
            assert faults(schema, block) == []


def test_what_the_settings_take_fits(schema: dict[str, Any], tmp_path: Path) -> None:
    assert faults(schema, FULL) == []
    assert faults(schema, "") == []


@pytest.mark.parametrize(
    "text",
    [
        "[databse]\nurl = 'x'",
        "[http]\nprot = 1",
        "[http]\nport = 'many'",
        "[http]\nport = 70000",
        "[worker]\nlease = 'soon'",
        "[log]\nlevel = 'loud'",
        "[bridges.shop]\ntype = 'rabitmq'",
        "[bridges.shop]\nto_queue = 'x'",
        "[bridges.shop]\ntype = 'rabbitmq'\nqueue = 'x'",
        "[bridges.shop]\ntype = 'rabbitmq'\nurl = 'amqp://b/'",
        "[bridges.shop]\ntype = 'http'\nqueue = 'x'",
        "[bridges.shop]\ntype = 'http'\nbatch = { count = 0 }",
        "[bridges.Shop]\ntype = 'http'",
        "[bridges.a__b]\ntype = 'http'",
        "[sinks.crm]\ntype = 'webhook'",
        "[sinks.crm]\ntype = 'webhook'\nurl = 'https://x.example.com'\nsecrets = 'x'",
    ],
)
def test_what_the_settings_refuse_does_not_fit(schema: dict[str, Any], tmp_path: Path, text: str) -> None:
    file = tmp_path / "hammerwork.toml"
    file.write_text(text)
    with pytest.raises(Misconfigured):
        load(file, {})
    assert faults(schema, text) != []


def test_unknown_keys_of_a_plugin_fit_no_more_than_the_settings_take_them() -> None:
    class Loose(BaseModel):
        size: int = 1

    assert Loose.model_json_schema(schema_generator=SettingsSchema)["additionalProperties"] is False


def test_a_secret_may_be_in_a_file_instead(schema: dict[str, Any], tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("amqp://b/")
    text = f"[bridges.x]\ntype = 'rabbitmq'\nqueue = 'q'\nurl_file = '{secret}'"
    (tmp_path / "hammerwork.toml").write_text(text)
    load(tmp_path / "hammerwork.toml", {})
    assert faults(schema, text) == []
