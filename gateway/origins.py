"""Where settings come from: variables of the environment and one TOML file, merged into one tree that
remembers the origin of every value."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..core.errors import Misconfigured

PREFIX = "HAMMERWORK_"
DELIMITER = "__"
CONFIG = "HAMMERWORK_CONFIG"

SHORT_FORMS: Mapping[str, tuple[str, ...]] = {
    "HAMMERWORK_DATABASE_URL": ("database", "url"),
    "HAMMERWORK_DATABASE_URL_FILE": ("database", "url_file"),
    "HAMMERWORK_RABBITMQ_URL": ("bridges", "rabbitmq", "url"),
    "HAMMERWORK_RABBITMQ_URL_FILE": ("bridges", "rabbitmq", "url_file"),
    "HAMMERWORK_RABBITMQ_QUEUE": ("bridges", "rabbitmq", "queue"),
    "HAMMERWORK_RABBITMQ_TO_QUEUE": ("bridges", "rabbitmq", "to_queue"),
    "HAMMERWORK_SQS_QUEUE": ("bridges", "sqs", "queue"),
    "HAMMERWORK_SQS_REGION": ("bridges", "sqs", "region"),
    "HAMMERWORK_SQS_ENDPOINT_URL": ("bridges", "sqs", "endpoint_url"),
    "HAMMERWORK_SQS_TO_QUEUE": ("bridges", "sqs", "to_queue"),
    "HAMMERWORK_KAFKA_BOOTSTRAP": ("bridges", "kafka", "bootstrap"),
    "HAMMERWORK_KAFKA_TOPICS": ("bridges", "kafka", "topics"),
    "HAMMERWORK_KAFKA_TO_QUEUE": ("bridges", "kafka", "to_queue"),
    "HAMMERWORK_WEBHOOK_URL": ("sinks", "webhook", "url"),
    "HAMMERWORK_WEBHOOK_SECRET": ("sinks", "webhook", "secrets"),
    "HAMMERWORK_WEBHOOK_SECRET_FILE": ("sinks", "webhook", "secrets_file"),
    "HAMMERWORK_KAFKA_EVENTS_BOOTSTRAP": ("sinks", "kafka", "bootstrap"),
    "HAMMERWORK_KAFKA_EVENTS_TOPIC": ("sinks", "kafka", "topic"),
    "HAMMERWORK_KINESIS_STREAM": ("sinks", "kinesis", "stream"),
}
"""The quick start: these make bridges named `rabbitmq`, `kafka` and `sqs`, and sinks named `webhook`, `kafka`
and `kinesis`."""

NOT_SETTINGS = re.compile(r"HAMMERWORK_(CONFIG|FAILPOINTS|LIFELINE|TEST_\w*)")

# Kubernetes and old container links put these into every pod beside a service named "hammerwork…".
SERVICE_LINKS = re.compile(r"HAMMERWORK_(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP)\w*)")
SERVICE_PORT = re.compile(r"HAMMERWORK_(\w+_)?PORT")

Place = tuple[str, ...]
"""The place of a value in the tree: ("http", "port")."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from; `name` is the variable or the file."""

    kind: Literal["variable", "file", "default"]
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.kind


DEFAULT = Origin("default")


@dataclass(slots=True)
class Tree:
    """All the values that were given, variables before the file, each with its origin."""

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[Place, Origin] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def origin(self, path: Place) -> Origin:
        """The origin of the value at `path`, or of the nearest table above it that was given whole."""
        for length in range(len(path), 0, -1):
            if (found := self.origins.get(path[:length])) is not None:
                return found
        return DEFAULT

    def exact_origin(self, path: Place) -> Origin:
        """The origin of the value itself. A table of the file does not count for what it leaves out; a
        variable that holds a whole table does."""
        if path in self.origins:
            return self.origins[path]
        above = self.origin(path)
        return above if above.kind == "variable" else DEFAULT

    def first_given(self, place: Place) -> tuple[Place, Origin]:
        """The first value at or beneath `place`: its own place from there, and its origin."""
        for known, origin in self.origins.items():
            if known[: len(place)] == place:
                return known[len(place) :], origin
        return (), self.origin(place)

    def read_file(self, path: Path) -> None:
        """Take every value of a TOML file. Raises Misconfigured when it cannot be read at all."""
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise Misconfigured(f"the config file {path} does not exist", hint=f"see {CONFIG}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"the config file {path} cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise Misconfigured(f"{path} is not TOML: {error}", hint="text values need quotes") from error
        self._merge(self.values, given, (), Origin("file", str(path)))

    def read_variables(self, environment: Mapping[str, str]) -> None:
        """Take HAMMERWORK_* over what is there. Empty variables count as not set, because that is what
        `${VARIABLE:-}` in a compose file gives."""
        for name in sorted(environment, key=lambda name: (name.count(DELIMITER), name)):
            value = environment[name]
            if not value or not name.upper().startswith(PREFIX) or _is_no_setting(name.upper(), value):
                continue
            path = SHORT_FORMS.get(name.upper()) or _path_of(name)
            self._set(path, value, Origin("variable", name))
        self._name_quick_start_types()

    def _merge(self, into: dict[str, object], given: Mapping[str, object], at: Place, origin: Origin) -> None:
        for key, value in given.items():
            if isinstance(value, dict):
                table: dict[str, object] = {}
                into[key] = table
                self._merge(table, value, (*at, key), origin)
            else:
                into[key] = value
            self.origins[(*at, key)] = origin

    def _set(self, path: Place, value: str, origin: Origin) -> None:
        node = self.values
        for depth, key in enumerate(path[:-1], start=1):
            below = node.get(key)
            if below is None:
                below = node[key] = {}
            elif isinstance(below, str) and (table := json_table(below)) is not None:
                below = node[key] = table
            if not isinstance(below, dict):
                outer = self.origin(path[:depth])
                self.faults.append(
                    f"{'.'.join(path[:depth])} is no table in {outer}, so {origin} has no place"
                )
                return
            node = below
        node[path[-1]] = value
        self._forget(path)
        self.origins[path] = origin

    def _forget(self, path: Place) -> None:
        """A value that is replaced takes the origins of its parts along."""
        for known in [known for known in self.origins if known[: len(path)] == path]:
            del self.origins[known]

    def _name_quick_start_types(self) -> None:
        for section, kind in sorted({path[:2] for path in SHORT_FORMS.values() if len(path) == 3}):
            origins = [
                origin
                for name, path in SHORT_FORMS.items()
                if path[:2] == (section, kind) and (origin := self.origins.get(path)) and origin.name == name
            ]
            table = self.values.get(section)
            made = table.get(kind) if isinstance(table, dict) else None
            if origins and isinstance(made, dict) and "type" not in made:
                made["type"] = kind
                self.origins[section, kind, "type"] = origins[0]


def variable_for(path: Place) -> str:
    """The variable that sets the value at `path`, the short one where there is one."""
    for name, short in SHORT_FORMS.items():
        if short == path:
            return name
    return PREFIX + DELIMITER.join(path).upper()


def json_table(text: str) -> dict[str, object] | None:
    """The JSON object that a variable holds, or None when it holds something else."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _path_of(name: str) -> Place:
    return tuple(name[len(PREFIX) :].lower().split(DELIMITER))


def _is_no_setting(name: str, value: str) -> bool:
    if NOT_SETTINGS.fullmatch(name) or SERVICE_LINKS.fullmatch(name):
        return True
    return SERVICE_PORT.fullmatch(name) is not None and value.startswith(("tcp://", "udp://"))
