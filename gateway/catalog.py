"""What settings can name: types of bridges and sinks, transforms, handlers; built in or of plugins."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from ..core.errors import Misconfigured, MissingExtra
from ..core.event import AnySink, SinkCapabilities
from ..core.importing import named_object
from ..core.message import Bridge, BridgeCapabilities

Made = TypeVar("Made", Bridge, AnySink)
Made_co = TypeVar("Made_co", covariant=True)


class Factory(Protocol[Made_co]):
    """The class of a bridge or sink: called with its name and its options, it connects to nothing yet."""

    def __call__(self, name: str, options: BaseModel, /) -> Made_co: ...


@dataclass(frozen=True, slots=True)
class Source:
    """Where something that settings can name comes from: its package, and its place in it."""

    package: str
    place: str
    """package.module:name"""
    distribution: str = "hammerwork"
    extra: str | None = None
    """Of that distribution: what its client library belongs to."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[Made]):
    """A type of bridge or sink: the model of its options, and how one is made of them."""

    name: str
    options: type[BaseModel]
    factory: Callable[..., Made]

    @property
    def capabilities(self) -> BridgeCapabilities | SinkCapabilities | None:
        """What it says of itself; None where it says nothing."""
        return getattr(self.factory, "capabilities", None)

    def build(self, name: str, options: BaseModel) -> Made:
        """The bridge or sink of that name. Raises Misconfigured, and MissingExtra."""
        return self.factory(name, options)


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """Where a built-in type lives, and the extra that its client library belongs to."""

    module: str
    factory: str
    options: str
    extra: str | None = None


class Plugins:
    """The entry points of one group; the name of each is what settings say, its object what they get."""

    def __init__(self, what: str, group: str) -> None:
        self.what = what
        self.group = group

    def names(self) -> list[str]:
        return sorted({point.name for point in _installed(self.group)})

    def source(self, name: str) -> Source:
        """Where `name` comes from, without importing it. Raises Misconfigured."""
        if ":" in name:
            return Source(package="", place=name)
        point = self._point(name, self.names())
        place = point.value.partition(" ")[0]
        if (dist := point.dist) is None:
            return Source("", place)
        extra = point.extras[0] if point.extras else None
        return Source(f"{dist.name} {dist.version}", place, dist.name, extra)

    def find(self, name: str, known: Iterable[str] = ()) -> object:
        """The object; `name` may also be its place, package.module:name. Raises Misconfigured."""
        if ":" in name:
            return named_object(name)
        return _loaded(self._point(name, [*known, *self.names()]), self.what)

    def _point(self, name: str, known: Iterable[str]) -> EntryPoint:
        points = [point for point in _installed(self.group) if point.name == name]
        match points:
            case [point]:
                return point
            case []:
                raise self._unknown(name, sorted(set(known)))
            case _:
                sources = ", ".join(sorted(point.value for point in points))
                raise Misconfigured(
                    f"the {self.what} {name!r} is offered by several packages: {sources}",
                    hint="uninstall all but one",
                )

    def _unknown(self, name: str, known: list[str]) -> Misconfigured:
        close = get_close_matches(name, known, n=1)
        there_are = f"there are {', '.join(known)}" if known else "no installed package offers any"
        return Misconfigured(
            f"there is no {self.what} {name!r}",
            hint=f"did you mean {close[0]!r}?" if close else f"{there_are}; or name package.module:name",
        )


def _loaded(point: EntryPoint, what: str) -> object:
    try:
        return point.load()
    except ModuleNotFoundError as error:
        missing, _, _ = (error.name or "").partition(".")
        if point.extras and missing != point.module.partition(".")[0]:
            package = "hammerwork" if point.dist is None else point.dist.name
            raise MissingExtra(f"the {what} {point.name!r}", point.extras[0], package=package) from error
        raise _broken(point, what, error) from error
    except Exception as error:
        raise _broken(point, what, error) from error


def _broken(point: EntryPoint, what: str, error: Exception) -> Misconfigured:
    return Misconfigured(
        f"the plugin of the {what} {point.name!r} cannot be imported ({type(error).__name__}: {error})",
        hint=f"check the package that provides {point.value}",
    )


class Catalog(Generic[Made]):
    """The types of one sort: built in, or an object that a plugin's entry point or a setting names: called
    with (name, options), and with its options' pydantic model as `Options`."""

    def __init__(self, what: str, group: str, built_in: dict[str, BuiltIn]) -> None:
        self._what = what
        self._plugins = Plugins(f"{what} type", group)
        self._built_in = built_in

    def names(self) -> list[str]:
        """Every type that may be named, but for those that are named by their place."""
        return sorted({*self._built_in, *self._plugins.names()})

    def source(self, name: str) -> Source:
        """Where the type comes from, without importing it. Raises Misconfigured."""
        if (built_in := self._built_in.get(name)) is not None:
            module = importlib.util.resolve_name(built_in.module, __package__)
            return Source("built in", f"{module}:{built_in.factory}", extra=built_in.extra)
        return self._plugins.source(name)

    def find(self, name: str) -> Kind[Made]:
        """The type of that name. Raises Misconfigured with the nearest match, and MissingExtra."""
        if (built_in := self._built_in.get(name)) is not None:
            return self._import(name, built_in)
        found = self._plugins.find(name, self._built_in)
        options = getattr(found, "Options", None)
        if not (callable(found) and isinstance(options, type) and issubclass(options, BaseModel)):
            raise Misconfigured(
                f"{name} is no {self._what}: a class with a pydantic model `Options` is expected",
                hint="docs/writing-a-plugin.md shows one",
            )
        return Kind(name, options, found)

    def usable(self) -> Iterator[Kind[Made]]:
        """Every type that can be used here: not those whose extra is missing. Raises Misconfigured."""
        for name in self.names():
            with suppress(MissingExtra):
                yield self.find(name)

    def make(self, kind: str, name: str, options: Mapping[str, Any]) -> Made:
        """A bridge or sink of options that are given in code. Raises Misconfigured, and MissingExtra."""
        found = self.find(kind)
        try:
            read = found.options.model_validate(options)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise Misconfigured(f"the {kind} {self._what} {name!r} cannot be: {faults}") from error
        return found.build(name, read)

    def _import(self, name: str, built_in: BuiltIn) -> Kind[Made]:
        try:
            module = importlib.import_module(built_in.module, __package__)
        except ModuleNotFoundError as error:
            ours = (error.name or "").partition(".")[0] == __package__.partition(".")[0]
            if built_in.extra is None or ours:
                raise
            raise MissingExtra(f"the {self._what} type {name!r}", built_in.extra) from error
        return Kind(name, getattr(module, built_in.options), getattr(module, built_in.factory))


@cache
def _installed(group: str) -> Iterable[EntryPoint]:
    return tuple(entry_points(group=group))


bridges: Catalog[Bridge] = Catalog(
    "bridge",
    "hammerwork.bridges",
    {
        "rabbitmq": BuiltIn("..bridges.rabbitmq", "RabbitmqBridge", "RabbitmqOptions", extra="rabbitmq"),
        "sqs": BuiltIn("..bridges.sqs", "SqsBridge", "SqsOptions", extra="aws"),
        "kafka": BuiltIn("..bridges.kafka", "KafkaBridge", "KafkaOptions", extra="kafka"),
        "http": BuiltIn("..bridges.http", "HttpBridge", "HttpOptions"),
    },
)

sinks: Catalog[AnySink] = Catalog(
    "sink",
    "hammerwork.sinks",
    {
        "webhook": BuiltIn("..sinks.webhook", "WebhookSink", "WebhookOptions"),
        "kafka": BuiltIn("..sinks.kafka", "KafkaSink", "KafkaSinkOptions", extra="kafka"),
        "kinesis": BuiltIn("..sinks.kinesis", "KinesisSink", "KinesisOptions", extra="aws"),
    },
)

transforms = Plugins("transform", "hammerwork.transforms")
handlers = Plugins("collection of handlers", "hammerwork.handlers")
