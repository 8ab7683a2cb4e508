"""The types of bridges and sinks: the built-in ones, imported when used, and those of installed plugins."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel

from ..core.errors import Misconfigured, MissingExtra
from ..core.event import Sink
from ..core.message import Bridge

Made = TypeVar("Made", Bridge, Sink)
Made_co = TypeVar("Made_co", covariant=True)


class Factory(Protocol[Made_co]):
    """The class of a bridge or sink: called with its name and its options, it connects to nothing yet."""

    def __call__(self, name: str, options: BaseModel, /) -> Made_co: ...


@dataclass(frozen=True, slots=True)
class Kind(Generic[Made]):
    """A type of bridge or sink: the model of its options, and how one is made of them."""

    name: str
    options: type[BaseModel]
    factory: Callable[..., Made]

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


class Catalog(Generic[Made]):
    """The types of one sort. Plugins join by an entry point in `group`, whose name is the type and whose
    object is the class: called with (name, options), and with its options' pydantic model as `Options`."""

    def __init__(self, what: str, group: str, built_in: dict[str, BuiltIn]) -> None:
        self._what = what
        self._group = group
        self._built_in = built_in

    def names(self) -> list[str]:
        """Every type that may be named."""
        return sorted({*self._built_in, *(point.name for point in _installed(self._group))})

    def find(self, name: str) -> Kind[Made]:
        """The type of that name. Raises Misconfigured with the nearest match, and MissingExtra."""
        if (built_in := self._built_in.get(name)) is not None:
            return self._import(name, built_in)
        points = [point for point in _installed(self._group) if point.name == name]
        match points:
            case [point]:
                return self._load(point)
            case []:
                raise self._unknown(name)
            case _:
                sources = ", ".join(sorted(point.value for point in points))
                raise Misconfigured(
                    f"the {self._what} type {name!r} is offered by several packages: {sources}",
                    hint="uninstall all but one",
                )

    def _import(self, name: str, built_in: BuiltIn) -> Kind[Made]:
        try:
            module = importlib.import_module(built_in.module, __package__)
        except ModuleNotFoundError as error:
            ours = (error.name or "").partition(".")[0] == __package__.partition(".")[0]
            if built_in.extra is None or ours:
                raise
            raise MissingExtra(f"the {self._what} type {name!r}", built_in.extra) from error
        return Kind(name, getattr(module, built_in.options), getattr(module, built_in.factory))

    def _load(self, point: EntryPoint) -> Kind[Made]:
        try:
            found = point.load()
        except Exception as error:
            raise Misconfigured(
                f"the plugin of the {self._what} type {point.name!r} cannot be imported"
                f" ({type(error).__name__}: {error})",
                hint=f"check the package that provides {point.value}",
            ) from error
        options = getattr(found, "Options", None)
        if not (callable(found) and isinstance(options, type) and issubclass(options, BaseModel)):
            raise Misconfigured(
                f"{point.value} is no {self._what}: a class with a pydantic model `Options` is expected",
                hint=f"it is the entry point {point.name!r} in {point.group}",
            )
        return Kind(point.name, options, found)

    def _unknown(self, name: str) -> Misconfigured:
        close = get_close_matches(name, self.names(), n=1)
        return Misconfigured(
            f"there is no {self._what} type {name!r}",
            hint=f"did you mean {close[0]!r}?" if close else f"there are {', '.join(self.names())}",
        )


@cache
def _installed(group: str) -> Iterable[EntryPoint]:
    return tuple(entry_points(group=group))


bridges: Catalog[Bridge] = Catalog(
    "bridge",
    "hammerwork.bridges",
    {
        "rabbitmq": BuiltIn("..bridges.rabbitmq", "RabbitmqBridge", "RabbitmqOptions", extra="rabbitmq"),
        "http": BuiltIn("..bridges.http", "HttpBridge", "HttpOptions"),
    },
)

sinks: Catalog[Sink] = Catalog(
    "sink",
    "hammerwork.sinks",
    {"webhook": BuiltIn("..sinks.webhook", "WebhookSink", "WebhookOptions")},
)
