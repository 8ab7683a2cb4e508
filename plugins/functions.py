"""Functions as plugins: an async generator becomes a type of bridge, an async function a type of sink."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel

from ..core.errors import Misconfigured
from ..core.event import DeliveryAttempt, DeliveryReport, Sink, SinkCapabilities
from ..core.job import Done, Outcome
from ..core.message import AT_LEAST_ONCE, Bridge, BridgeCapabilities, Guarantee, Message
from .generator import GeneratorBridge

Own = TypeVar("Own", bound=BaseModel)

Yielded = Message | Sequence[Message]
Generates = Callable[[Own], AsyncIterator[Yielded]]
Delivers = Callable[[Own, DeliveryAttempt], Awaitable[DeliveryReport | Outcome | None]]

BRIDGE = BridgeCapabilities()
SINK = SinkCapabilities()


@dataclass(frozen=True)
class BridgeFunction(Generic[Own]):
    """A type of bridge that `@bridge` made: called with a name and options, as a class would be."""

    kind: str
    function: Generates[Own]
    Options: type[Own]
    capabilities: BridgeCapabilities

    def __call__(self, name: str, options: Own, /) -> Bridge:
        return GeneratorBridge(name, lambda: self.function(options), self.capabilities)


@dataclass(frozen=True)
class SinkFunction(Generic[Own]):
    """A type of sink that `@sink` made: called with a name and options, as a class would be."""

    kind: str
    function: Delivers[Own]
    Options: type[Own]
    capabilities: SinkCapabilities

    def __call__(self, name: str, options: Own, /) -> Sink:
        return FunctionSink(name, lambda attempt: self.function(options, attempt))


class FunctionSink(Sink):
    """Implements `core.event.Sink` by one function; nothing is kept between two deliveries."""

    def __init__(
        self, name: str, deliver: Callable[[DeliveryAttempt], Awaitable[DeliveryReport | Outcome | None]]
    ) -> None:
        self.name = name
        self._deliver = deliver

    async def open(self) -> None:
        return

    async def deliver(self, attempt: DeliveryAttempt) -> DeliveryReport:
        match await self._deliver(attempt):
            case None:
                return DeliveryReport(outcome=Done())
            case DeliveryReport() as report:
                return report
            case outcome:
                return DeliveryReport(outcome=outcome)

    async def close(self) -> None:
        return

    async def guarantee(self) -> Guarantee:
        return Guarantee(AT_LEAST_ONCE, "an event is delivered again until the function has taken it")


def bridge(
    kind: str,
    *,
    options: type[Own],
    capabilities: BridgeCapabilities = BRIDGE,
) -> Callable[[Generates[Own]], BridgeFunction[Own]]:
    """Make an async generator of messages a type of bridge, named `kind`:

        @bridge("gibberish", options=GibberishOptions)
        async def gibberish(options: GibberishOptions) -> AsyncIterator[Message]:
            while True:
                yield Message(body=os.urandom(options.size))

    To be resumed after a `yield` means: what was yielded is committed. So one yield is in hand at a time;
    a list of messages in place of one is stored in as few transactions as it fits in. `GeneratorBridge` says
    the rest. Raises Misconfigured for a function that is no async generator.
    """

    def made(function: Generates[Own]) -> BridgeFunction[Own]:
        if not inspect.isasyncgenfunction(function):
            raise Misconfigured(
                f"@bridge({kind!r}) needs an async generator function", hint="async def … with a yield in it"
            )
        return _named_after(function, BridgeFunction(kind, function, options, capabilities))

    return made


def sink(
    kind: str,
    *,
    options: type[Own],
    capabilities: SinkCapabilities = SINK,
) -> Callable[[Delivers[Own]], SinkFunction[Own]]:
    """Make an async function a type of sink, named `kind`: it is called with the options and one event.

    It answers None or Done (taken), another Outcome, or a whole DeliveryReport; what it raises is logged and
    counts as Retry. Raises Misconfigured for a function that is not async.
    """

    def made(function: Delivers[Own]) -> SinkFunction[Own]:
        if not inspect.iscoroutinefunction(function):
            raise Misconfigured(f"@sink({kind!r}) needs an async function", hint="async def")
        return _named_after(function, SinkFunction(kind, function, options, capabilities))

    return made


Made = TypeVar("Made")


def _named_after(function: object, made: Made) -> Made:
    """The place and the docstring of the function are the type's."""
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        object.__setattr__(made, name, getattr(function, name))
    return made
