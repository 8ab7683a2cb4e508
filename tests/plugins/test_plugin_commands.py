"""`hammerwork plugins`: what is there, where it comes from, what it can, and how each option is set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hammerwork.bridges.rabbitmq import RabbitmqOptions
from hammerwork.gateway import catalog
from hammerwork.gateway.cli.plugin_page import options_of
from hammerwork.gateway.settings.json_schema import options_schema
from hammerwork.gateway.settings.words import docs_of
from hammerwork.sinks.webhook import WebhookOptions

from ..gateway.command import Hammerwork, assert_one_clear_line

SHELF = "hammerwork.tests.contracts.shelf:ShelfSink"


@pytest.fixture
def command(tmp_path: Path) -> Hammerwork:
    return Hammerwork(tmp_path)


async def test_the_list_says_where_each_comes_from_and_whether_it_can_be_used(command: Hammerwork) -> None:
    listed = await command("plugins", "list")
    assert listed.code == 0
    assert ["bridge", "http", "built in", "hammerwork.bridges.http:HttpBridge", "usable"] in listed.rows
    names = {(row[0], row[1]) for row in listed.rows}
    assert names >= {("bridge", name) for name in catalog.bridges.names()}
    assert names >= {("sink", name) for name in catalog.sinks.names()}


async def test_the_list_says_what_a_plugin_still_needs(command: Hammerwork, tmp_path: Path) -> None:
    (tmp_path / "depot.py").write_text("def to_draft(message): return None\n")
    said = tmp_path / "depot-1.0.dist-info"
    said.mkdir()
    (said / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: depot\nVersion: 1.0\nProvides-Extra: odd\nProvides-Extra: even\n"
        'Requires-Dist: nowhere-to-be-found>=2; extra == "odd"\nRequires-Dist: pytest>=2; extra == "even"\n'
    )
    (said / "entry_points.txt").write_text(
        "[hammerwork.transforms]\nodd = depot:to_draft [odd]\neven = depot:to_draft [even]\n"
    )
    listed = await command("plugins", "list", more={"PYTHONPATH": str(tmp_path)})
    states = {row[1]: row[-1] for row in listed.rows}
    assert states["even"] == "usable"
    assert "needs the extra `odd`" in states["odd"]
    assert "pip install 'depot[odd]'" in states["odd"]


async def test_a_plugin_shows_what_it_can_and_each_option_with_its_variable(command: Hammerwork) -> None:
    shown = await command("plugins", "show", "rabbitmq")
    assert shown.code == 0
    assert "stable ids\tyes" in shown.out
    assert "  url  secret  required\n      HAMMERWORK_BRIDGES__NAME__URL\n" in shown.out
    assert "  prefetch  whole number, at least 1, at most 65535  default 1500\n" in shown.out
    assert "HAMMERWORK_BRIDGES__NAME__TLS__CA_FILE" in shown.out


async def test_a_plugin_that_is_not_installed_is_shown_by_its_place(command: Hammerwork) -> None:
    shown = json.loads((await command("plugins", "show", SHELF, "--json")).out)
    assert shown["sort"] == "sink"
    assert shown["capabilities"]["largest"] == "100000"
    assert [option["name"] for option in shown["options"]] == ["port", "token", "tags"]


async def test_what_is_not_there_is_one_clear_line(command: Hammerwork) -> None:
    assert_one_clear_line(await command("plugins", "show", "rabitmq"), "no plugin is named 'rabitmq'")
    assert_one_clear_line(
        await command("plugins", "show", "rabitmq", "--sort", "bridge"), "", hint="did you mean 'rabbitmq'?"
    )


async def test_the_page_of_a_plugin_has_a_row_for_every_option(command: Hammerwork) -> None:
    page = (await command("plugins", "show", "webhook", "--markdown")).out
    for name in WebhookOptions.model_fields:
        assert f"| `{name}` |" in page


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        ({"url": "amqp://h/", "queue": "q"}, True),
        ({"url": "amqp://h/", "queue": "q", "connect_timeout": "5s", "heartbeat": 20}, True),
        ({"url_file": "/run/secrets/url", "queue": "q"}, True),
        ({"url": "amqp://h/"}, False),
        ({"url": "amqp://h/", "queue": "q", "quue": 1}, False),
        ({"url": "amqp://h/", "queue": "q", "prefetch": 0}, False),
    ],
)
def test_the_schema_takes_what_settings_take(given: dict[str, Any], fits: bool) -> None:
    schema = options_schema(RabbitmqOptions)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert jsonschema.Draft202012Validator(schema).is_valid(given) is fits


def test_what_stands_behind_a_field_is_its_documentation_everywhere() -> None:
    said = docs_of(RabbitmqOptions)["prefetch"]
    assert said.startswith("How many messages the broker may send ahead")
    assert options_schema(RabbitmqOptions)["properties"]["prefetch"]["description"] == said
    (option,) = [option for option in options_of(RabbitmqOptions, "bridges") if option.name == "prefetch"]
    assert option.doc == said
