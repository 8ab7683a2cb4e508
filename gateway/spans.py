"""Spans of time as people write them: `250ms`, `30s`, `1h30m`, or a plain number of seconds."""

from __future__ import annotations

import re
from datetime import timedelta

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
LONGEST = timedelta(days=3653)

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", re.ASCII)
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)


def span_of(text: str) -> timedelta | None:
    """The span that the text says; None where it says none, or a longer one than can be counted."""
    seconds = _seconds(text)
    try:
        return None if seconds is None else timedelta(seconds=seconds)
    except OverflowError:
        return None


def read_span(text: str) -> timedelta:
    """The span that the text says. Raises ValueError for other text and for more than ten years."""
    if (seconds := _seconds(text)) is None:
        raise ValueError("must be a duration such as 250ms, 30s, 5m, 2h or 7d")
    if seconds > LONGEST.total_seconds():
        raise ValueError("must not be longer than ten years")
    return timedelta(seconds=seconds)


def _seconds(text: str) -> float | None:
    plain = text.strip().lower()
    if _NUMBER.fullmatch(plain):
        return float(plain)
    parts = _PART.findall(plain)
    if not parts or "".join(number + unit for number, unit in parts) != plain:
        return None
    return float(sum(float(number) * SECONDS[unit] for number, unit in parts))


def span_text(span: timedelta) -> str:
    """The span in its largest whole unit."""
    seconds = span.total_seconds()
    for unit in ("w", "d", "h", "m", "s", "ms"):
        count = seconds / SECONDS[unit]
        if count >= 1 and abs(count - round(count)) < 1e-9:
            return f"{round(count)}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"
