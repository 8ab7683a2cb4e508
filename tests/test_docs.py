"""The documentation keeps up: its examples can be read, its commands exist, every setting is in it."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.core import TyperGroup
from typer.main import get_command

from hammerwork.bridges.http import HttpOptions
from hammerwork.bridges.kafka import KafkaOptions
from hammerwork.bridges.rabbitmq import RabbitmqOptions
from hammerwork.bridges.sqs import SqsOptions
from hammerwork.clients.schemas.options import RegistryOptions
from hammerwork.gateway.cli.tree import root
from hammerwork.gateway.parts import build_parts
from hammerwork.gateway.settings import load
from hammerwork.gateway.settings.bridges import (
    BatchSettings,
    BridgeSettings,
    DecodeSettings,
    JobSettings,
    LimitSettings,
    MapSettings,
)
from hammerwork.gateway.settings.process import (
    DatabaseSettings,
    HttpSettings,
    LogSettings,
    RetentionSettings,
    WorkerSettings,
)
from hammerwork.gateway.settings.sinks import SinkSettings
from hammerwork.sinks.kafka import KafkaSinkOptions
from hammerwork.sinks.kinesis import KinesisOptions
from hammerwork.sinks.webhook import WebhookOptions

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SECTIONS: list[type[BaseModel]] = [
    BatchSettings, BridgeSettings, DatabaseSettings, DecodeSettings, HttpOptions, HttpSettings, JobSettings,
    KafkaOptions, KafkaSinkOptions, KinesisOptions, LimitSettings, LogSettings, MapSettings, RabbitmqOptions,
    RegistryOptions, RetentionSettings, SinkSettings, SqsOptions, WebhookOptions, WorkerSettings,
]  # fmt: skip
PLUGGED = "options"


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for found in re.finditer(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            yield page.name, found[1]


def test_what_the_pages_link_to_is_there() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def commands() -> set[str]:
    """What the pages call `hammerwork WORD [WORD]`, in code."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    found = {
        match
        for text in texts
        for match in re.findall(r"(?:^\$ |^|`|  )hammerwork ([a-z-]+(?: [a-z-]+)?)", text, re.M)
    }
    return {command for command in found if not command.startswith("-")}


@pytest.mark.parametrize(("page", "text"), list(blocks("python")))
def test_python_in_the_pages_can_be_read(page: str, text: str) -> None:
    compile(text, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize(("page", "text"), list(blocks("toml")))
def test_toml_in_the_pages_can_be_read(page: str, text: str) -> None:
    assert tomllib.loads(text), page


@pytest.mark.parametrize("command", sorted(commands()))
def test_commands_of_the_pages_exist(command: str) -> None:
    here: object = get_command(root)
    for word in command.split():
        if not isinstance(here, TyperGroup):
            return  # an argument
        assert word in here.commands, f"hammerwork {command}"
        here = here.commands[word]


def lines_of_variables() -> list[str]:
    """The table rows that give what a gateway needs for a broker."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.startswith("| ") and "`HAMMERWORK_" in line]


@pytest.mark.parametrize("line", lines_of_variables(), ids=lambda line: line.split("|")[1].strip())
def test_a_broker_in_one_line_is_all_that_a_gateway_needs(line: str) -> None:
    variables = dict(re.findall(r"`(HAMMERWORK_\w+)=([^`]*)`", line))
    parts = build_parts(load(None, variables))
    assert len(parts.ingests) == 1


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_setting_is_documented(section: type[BaseModel]) -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    missing = [
        name
        for name, found in section.model_fields.items()
        if name != PLUGGED
        and not (isinstance(found.annotation, type) and issubclass(found.annotation, BaseModel))
        and f"`{found.alias or name}`" not in text
    ]
    assert missing == []
