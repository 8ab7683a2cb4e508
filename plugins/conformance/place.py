"""SinkPlace: what a test of any sink has in hand: its type, the options of its destination, its objects."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from ...core.event import LogSink, Sink, SinkCapabilities
from ...core.job import Json
from ...core.publish.relay import Subscription
from ...core.queue import Queue
from .harness import SinkHarness
from .spoken import keeping
from .trial import Condition, until

S = TypeVar("S", Sink, LogSink)


class SinkPlace(Generic[S]):
    """All of it belongs to one test: the sink's name, and the queue whose events it wants, are no other's."""

    def __init__(self, plugin: Any, kind: str, harness: SinkHarness, queue: Queue) -> None:
        self.plugin = plugin
        self.kind = kind
        self.harness = harness
        self.capabilities: SinkCapabilities = plugin.capabilities
        self.name = f"trial_{secrets.token_hex(6)}"
        self._queue = queue
        self._sinks: list[S] = []

    @property
    def subscription(self) -> Subscription:
        """What the sink wants."""
        raise NotImplementedError

    async def register(self) -> None:
        """From now on the events that the sink wants are written."""
        types = sorted(self.subscription.types)
        await self._queue.database.fetch("register_sink", self.name, self.kind, types)

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


Place = TypeVar("Place", bound=SinkPlace[Any])


@asynccontextmanager
async def begun(
    trial_type: type[Place], plugin: Any, kind: str, harness: SinkHarness, dsn: str
) -> AsyncIterator[Place]:
    """A trial of that sink, which settings name `kind`. At its end everything is closed, and what was logged
    is searched for secrets."""
    with keeping(harness.secrets):
        async with AsyncExitStack() as stack:
            queue = await stack.enter_async_context(Queue(dsn))
            await queue.migrate()
            trial = trial_type(plugin, kind, harness, queue)
            await trial.register()
            stack.push_async_callback(trial.close_all)
            yield trial
