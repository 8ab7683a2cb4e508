"""Spans of time as people write them: `250ms`, `30s`, `1h30m`, or a plain number of seconds."""

from __future__ import annotations

import re
from datetime import timedelta

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
LONGEST = timedelta(days=3653)

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", re.ASCII)
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)


def read_span(text: str) -> timedelta:
    """The span that the text says. Raises ValueError for other text and for more than ten years."""
    plain = text.strip().lower()
    if _NUMBER.fullmatch(plain):
        seconds = float(plain)
    else:
        parts = _PART.findall(plain)
        if not parts or "".join(number + unit for number, unit in parts) != plain:
            raise ValueError("must be a duration such as 250ms, 30s, 5m, 2h or 7d")
        seconds = sum(float(number) * SECONDS[unit] for number, unit in parts)
    if seconds > LONGEST.total_seconds():
        raise ValueError("must not be longer than ten years")
    return timedelta(seconds=seconds)
