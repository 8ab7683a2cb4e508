"""What commands print: tables for people, tab-separated lines for pipes, JSON for programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from .failures import Ended, ExitCode

if TYPE_CHECKING:
    from pydantic import BaseModel

T = TypeVar("T")
Columns = Mapping[str, Callable[[T], object]]

NARROWEST = 40
UNITS = (("d", 86_400), ("h", 3600), ("m", 60))


def show_list(items: Sequence[T], columns: Columns[T], as_json: bool) -> None:
    """Each item a line. With `as_json` all of every item, as one array."""
    if as_json:
        show_json([_plain(item) for item in items])
        return
    rows = [[cell(value(item)) for value in columns.values()] for item in items]
    if not rows:
        note("none")
    elif sys.stdout.isatty():
        say(*aligned([[heading.upper() for heading in columns], *rows], _width()))
    else:
        say(*("\t".join(row) for row in rows))


def show_one(item: T, as_json: bool) -> None:
    """Each field of one thing a line. With `as_json` one object."""
    fields = _plain(item)
    if as_json:
        show_json(fields)
        return
    rows = [[name, cell(value)] for name, value in fields.items()]
    if sys.stdout.isatty():
        say(*aligned([[name, value or "-"] for name, value in rows], None))
    else:
        say(*("\t".join(row) for row in rows))


def show_json(value: Any) -> None:
    """JSON whose text is safe on a terminal: what does not print is written as its escape."""
    text = json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None)
    say(re.sub(r"[^\n]", _json_escape, text))


def say(*lines: str) -> None:
    """Write lines of data, at once. Whoever reads may have enough of them: no error, and the end."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter would try to flush the rest again when it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Ended(ExitCode.OK) from None


def note(text: str) -> None:
    """A word beside the data, on standard error."""
    print(escaped(text, keep="\n"), file=sys.stderr)


def cell(value: object) -> str:
    """One value as a table shows it."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case Enum() if isinstance(value, str):
            return str(value.value)
        case Enum():
            return value.name.lower()
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        case timedelta():
            return span(value)
        case str():
            return escaped(value)
        case list() | tuple() if all(isinstance(member, str) for member in value):
            return escaped(",".join(value))
        case dict() | list():
            return escaped(json.dumps(value, ensure_ascii=False))
        case _:
            return escaped(str(value))


def span(value: timedelta) -> str:
    """A duration in at most two units: 1d3h, 4m12s, 0.35s."""
    seconds = value.total_seconds()
    if seconds < 60:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"
    left = int(seconds)
    for index, (unit, size) in enumerate(UNITS):
        if left >= size:
            smaller = (*UNITS, ("s", 1))[index + 1]
            rest = left % size // smaller[1]
            return f"{left // size}{unit}" + (f"{rest}{smaller[0]}" if rest else "")
    return f"{left}s"


def escaped(text: str, keep: str = "") -> str:
    """The text with what would move a cursor, ring a bell or turn the writing around spelled out."""
    if text.isprintable():
        return text
    return "".join(char if char in keep or char.isprintable() else _escape(char) for char in text)


def aligned(rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Rows with their columns beneath one another, cut at `width` characters."""
    widths = [max(len(value) for value in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        line = "  ".join(value.ljust(size) for value, size in zip(row, widths, strict=True)).rstrip()
        lines.append(line if width is None or len(line) <= width else line[: width - 1] + "…")
    return lines


def _plain(item: object) -> Any:
    if isinstance(item, dict):
        return item
    model: BaseModel = item  # type: ignore[assignment]
    return model.model_dump(mode="json")


def _escape(char: str) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char) or char.encode("unicode_escape").decode("ascii")


def _json_escape(match: re.Match[str]) -> str:
    char = match[0]
    if char.isprintable():
        return char
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _width() -> int:
    return max(shutil.get_terminal_size().columns, NARROWEST)
