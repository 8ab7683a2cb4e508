"""Payloads of a given size whose text no compressor makes smaller."""

from __future__ import annotations

import base64
import json
from functools import cache
from itertools import cycle, islice
from random import Random

from hammerwork.core.job import Json

SMALL = 150
"""Bytes of JSON text: what every row carries that does not say otherwise."""
DISTINCT = 1000


def payloads(count: int, size: int = SMALL) -> list[Json]:
    """`count` JSON objects of exactly `size` bytes as compact text; they repeat after a thousand."""
    return list(islice(cycle(_distinct(size)), count))


def encoded(payload: Json) -> str:
    """Compact JSON text."""
    return json.dumps(payload, separators=(",", ":"))


@cache
def _distinct(size: int) -> list[Json]:
    random = Random(size)
    room = size - len(encoded({"order": 100_000, "text": ""}))
    return [
        {
            "order": random.randrange(100_000, 1_000_000),
            "text": base64.b64encode(random.randbytes(room)).decode()[:room],
        }
        for _ in range(DISTINCT)
    ]
