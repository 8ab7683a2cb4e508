"""CEL expressions over a message or an event, compiled and checked at start-up, so that a typing error
there never becomes a dead letter here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import structlog

from .errors import BadMessage, Misconfigured
from .job import Json
from .message import Message

if TYPE_CHECKING:
    import cel

log = structlog.get_logger(__name__)

VARIABLES = ("body", "headers", "key", "id", "priority", "coordinates", "content_type", "timestamp", "bridge")
"""What an expression may name: the decoded body, properties of the message as in core/message.py, and
the bridge's name."""

NATIVE_FUNCTIONS = frozenset(
    {"size", "contains", "startsWith", "endsWith", "matches", "type", "dyn"}
    | {"int", "uint", "double", "string", "bytes", "timestamp", "duration"}
    | {"getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"}
    | {"getHours", "getMinutes", "getSeconds", "getMilliseconds"}
)
TYPE_NAMES = frozenset(
    {"int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"}
)

_POSITION = re.compile(r"<input>:(\d+):(\d+): (.*)")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'')
_BOUND = re.compile(r"\.(?:map|filter|all|exists|exists_one)\(\s*(\w+)\s*,")
_INT64 = range(-(2**63), 2**64)


class ExpressionSet:
    """Named expressions that are evaluated over the same message.

    The message is handed to CEL once, and only what the expressions name of it. Raises Misconfigured,
    with the place in the source, for an expression that does not parse or names what does not exist.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = dict(sources)
        if not sources:
            return
        library = _library()
        self._new_context = type(library)
        self._programs = {n: _compile(n, source, library, VARIABLES) for n, source in sources.items()}
        self._names = {variable for p in self._programs.values() for variable in p.variables()}
        functions = {function for p in self._programs.values() for function in p.functions()}
        self._functions = library.functions if functions & _last_names(library) else {}

    def __bool__(self) -> bool:
        return bool(self._sources)

    def __contains__(self, name: str) -> bool:
        return name in self._sources

    def scope(self, message: Message, body: Json, bridge: str) -> cel.Context:
        """The message as CEL sees it, to be given to `value`. Raises BadMessage for an integer that CEL
        would round when the body may flow through a `payload` expression."""
        if "payload" in self._programs and "body" in self._names:
            _refuse_wide_integers(body)
        values: dict[str, Any] = {}
        for name in VARIABLES:
            if name not in self._names:
                continue
            match name:
                case "body":
                    values[name] = body
                case "bridge":
                    values[name] = bridge
                case "headers" | "coordinates":
                    values[name] = dict(getattr(message, name))
                case _:
                    values[name] = getattr(message, name)
        try:
            return self._new_context(values, self._functions)
        except Exception as error:
            raise BadMessage("mapping_failed", f"the message cannot be handed to CEL: {error}") from error

    def value(self, name: str, scope: cel.Context) -> Json:
        """What the expression gives for this message. Raises BadMessage("mapping_failed")."""
        try:
            return self._programs[name].execute(scope)
        except Exception as error:
            raise self.failed(name, _explained(error)) from error

    def failed(self, name: str, why: str) -> BadMessage:
        """The refusal of a message on which the named expression does not work out."""
        return BadMessage("mapping_failed", f"{name} = `{self._sources[name][:200]}`: {why[:300]}")


class Formula:
    """One CEL expression over named values. Raises Misconfigured as ExpressionSet does."""

    def __init__(self, name: str, source: str, *, variables: Sequence[str]) -> None:
        self.source = source
        self._name = name
        self._program = _compile(name, source, _library(), variables)

    def value(self, values: Mapping[str, Json]) -> Json:
        """What it gives for these values. Raises BadMessage("mapping_failed")."""
        try:
            return self._program.execute(dict(values))
        except Exception as error:
            text = f"{self._name} = `{self.source[:200]}`: {_explained(error)[:300]}"
            raise BadMessage("mapping_failed", text) from error


class Condition:
    """One CEL expression over named values, true or false. Raises Misconfigured as ExpressionSet does."""

    def __init__(self, source: str, *, variables: Sequence[str]) -> None:
        self.source = source
        self._formula = Formula("filter", source, variables=variables)

    def holds(self, values: Mapping[str, Json], *, otherwise: bool) -> bool:
        """Whether it is true of these values; `otherwise` when it fails or gives no truth value."""
        try:
            answer = self._formula.value(values)
        except BadMessage as error:
            log.warning("condition failed", condition=self.source, error=error.detail)
            return otherwise
        return answer if isinstance(answer, bool) else otherwise


def _library() -> cel.Context:
    # Importing cel brings its command line along (0.3 s): only those who use it pay for it.
    import cel
    from cel.stdlib import add_stdlib_to_context

    library = cel.Context()
    add_stdlib_to_context(library)
    return library


def _compile(name: str, source: str, library: cel.Context, known: Sequence[str]) -> cel.Program:
    import cel

    try:
        program = cel.compile(source)
    except ValueError as error:
        found = _POSITION.search(str(error))
        place, why = (f" at line {found[1]}, column {found[2]}", found[3]) if found else ("", str(error))
        raise Misconfigured(
            f"the expression for {name}, `{source}`, does not parse{place}: {why[:200]}",
            hint="expressions are CEL (https://cel.dev); text needs quotes of its own: \"'orders'\"",
        ) from error
    plain = _STRING.sub(lambda text: " " * len(text[0]), source)
    spaces = {function.partition(".")[0] for function in library.functions if "." in function}
    variables = {*known, *TYPE_NAMES, *spaces, *_BOUND.findall(plain)}
    functions = NATIVE_FUNCTIONS | _last_names(library)
    for variable in program.variables():
        if variable not in variables:
            raise _unknown(name, source, plain, "variable", variable, known)
    for function in program.functions():
        if function.isidentifier() and not function.startswith("_") and function not in functions:
            raise _unknown(name, source, plain, "function", function, sorted(functions))
    return program


def _last_names(library: cel.Context) -> frozenset[str]:
    """The library's functions as CEL reports references to them: `math.abs` as `abs`."""
    return frozenset(function.rpartition(".")[2] for function in library.functions)


def _unknown(
    name: str, source: str, plain: str, kind: str, wanted: str, known: Sequence[str]
) -> Misconfigured:
    found = re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", plain)
    place = f" at column {found.start() + 1}" if found else ""
    close = get_close_matches(wanted, known, n=1, cutoff=0.75)
    return Misconfigured(
        f"the expression for {name}, `{source}`, names an unknown {kind} `{wanted}`{place}",
        hint=f"did you mean `{close[0]}`?"
        if close
        else f"known are {', '.join(known)}; text needs quotes of its own: \"'orders'\"",
    )


def _explained(error: Exception) -> str:
    match error:
        case KeyError():
            return f"there is no key {error}"
        case _:
            return f"{type(error).__name__}: {error}"


def _refuse_wide_integers(value: Json) -> None:
    match value:
        case bool():
            return
        case int() if value not in _INT64:
            raise BadMessage("mapping_failed", "an integer of the body is beyond 64 bits; CEL would round it")
        case dict():
            for member in value.values():
                _refuse_wide_integers(member)
        case list():
            for member in value:
                _refuse_wide_integers(member)
