"""SinkPlace: what a test of any sink has in hand: its type, the options of its destination, its objects."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from ...core.event import LogSink, Sink, SinkCapabilities
from ...core.job import Json
from .harness import SinkHarness
from .trial import Condition, until

S = TypeVar("S", Sink, LogSink)


class SinkPlace(Generic[S]):
    """All of it belongs to one test: the sink's name is used by no other."""

    def __init__(self, plugin: Any, kind: str, harness: SinkHarness) -> None:
        self.plugin = plugin
        self.kind = kind
        self.harness = harness
        self.capabilities: SinkCapabilities = plugin.capabilities
        self.name = f"trial_{secrets.token_hex(6)}"
        self._sinks: list[S] = []

    @property
    def options(self) -> BaseModel:
        """The harness's options, validated as settings would."""
        return self._validated(self.harness.options)

    def sink(self, options: Mapping[str, Json] | None = None) -> S:
        """Another sink for the same destination, not open yet; it is closed at the end of the test."""
        made: S = self.plugin(self.name, self.options if options is None else self._validated(options))
        self._sinks.append(made)
        return made

    async def opened(self) -> S:
        made = self.sink()
        await made.open()
        return made

    async def close_all(self) -> None:
        for sink in self._sinks:
            await sink.close()

    def _validated(self, options: Mapping[str, Json]) -> BaseModel:
        made: BaseModel = self.plugin.Options.model_validate(dict(options))
        return made

    async def until(self, condition: Condition, what: str) -> None:
        """Poll until the condition holds; fails the test when the harness's patience is over."""
        await until(condition, self.harness.patience, what)

    def shown(self, said: Sequence[str]) -> list[str]:
        """The secrets that are in these texts."""
        return [secret for secret in self.harness.secrets if any(secret in text for text in said)]
