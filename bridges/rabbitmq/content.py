"""What a producer may put into an AMQP 0-9-1 message, made readable whatever it is: its properties, and
its header table as JSON."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

from ...core.job import Json

MOST_HEADERS = 256
MOST_HEADER_BYTES = 64 * 1024
DEEPEST_HEADER = 16
UNREADABLE_HEADERS = "hammerwork-unreadable"
"""The header that stands for a whole table that could not be decoded; its value is the start of it."""

FLAGS = struct.Struct(">H")
LONG = struct.Struct(">I")
MOMENT = struct.Struct(">Q")
SECONDS = 0xFFFF_FFFF
"""A timestamp above this (the year 2106) is meant in milliseconds."""
LATEST_MILLISECOND = 253_402_300_799_000
LONGEST_SHORT_STRING = 255


class Garbled(ValueError):
    """Bytes that the protocol does not allow; what follows them means nothing."""


class Properties(NamedTuple):
    """What a producer said about a message, None where it said nothing."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, object] | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: datetime | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None


def read_properties(payload: bytes, at: int) -> Properties:
    """The properties from `at` to the end of a content header; raises Garbled.

    What no Python value can hold is made readable, never refused, or the broker would deliver the message
    again for ever: text that is not UTF-8, headers that cannot be decoded or are nested without end, a
    moment beyond the year 9999. The lowest two flags stand for nothing, and brokers pass them on.
    """
    values: list[Any] = [None] * len(Properties._fields)
    try:
        (flags,) = FLAGS.unpack_from(payload, at)
        at += FLAGS.size
        for position, read in _named_by(flags & 0xFFFC):
            values[position], at = read(payload, at)
    except (IndexError, struct.error) as error:
        raise Garbled("a message's properties break off") from error
    if at != len(payload):
        raise Garbled("a message's properties are not as long as their parts")
    return Properties(*values)


def read_text(data: bytes, at: int) -> tuple[str, int]:
    """A short string and where it ends. Different bytes stay different, one of them may be an identity."""
    end = at + 1 + data[at]
    text = data[at + 1 : end]
    try:
        return text.decode(), end
    except UnicodeDecodeError:
        readable = text.decode("utf-8", "backslashreplace")
    if len(readable.encode()) > LONGEST_SHORT_STRING:
        readable = f"sha256:{hashlib.sha256(text).hexdigest()}"
    return readable, end


def _read_octet(data: bytes, at: int) -> tuple[int, int]:
    return data[at], at + 1


def _read_moment(data: bytes, at: int) -> tuple[datetime | None, int]:
    (moment,) = MOMENT.unpack_from(data, at)
    if moment > LATEST_MILLISECOND:
        return None, at + MOMENT.size
    return datetime.fromtimestamp(moment if moment <= SECONDS else moment / 1000, UTC), at + MOMENT.size


def _read_table(data: bytes, at: int) -> tuple[Mapping[str, object], int]:
    import pamqp.decode

    end = at + LONG.size + LONG.unpack_from(data, at)[0]
    table = data[at:end]
    try:
        return pamqp.decode.field_table(table)[1], end
    except Exception:  # struct, Unicode, overflow and recursion errors all mean the same here
        return {UNREADABLE_HEADERS: table[LONG.size : LONG.size + 1024]}, end


_READERS: dict[str, Callable[[bytes, int], tuple[Any, int]]] = {
    "headers": _read_table,
    "delivery_mode": _read_octet,
    "priority": _read_octet,
    "timestamp": _read_moment,
}


@cache
def _named_by(flags: int) -> tuple[tuple[int, Callable[[bytes, int], tuple[Any, int]]], ...]:
    """The properties that a content header's flags announce, the highest first, each with its reader."""
    return tuple(
        (position, _READERS.get(name, read_text))
        for position, name in enumerate(Properties._fields)
        if flags & 1 << 15 - position
    )


def json_headers(table: Mapping[str, object] | None) -> tuple[dict[str, Json], bool]:
    """A header table as JSON values, and whether some of it had to be left out.

    Decimals become text, timestamps RFC 3339, void null, bytes that are not UTF-8 `{"base64": …}`,
    NaN and infinities text. At most 256 headers and about 64 KiB are kept, in the order they came.
    """
    kept: dict[str, Json] = {}
    if not table:
        return kept, False
    left, truncated = MOST_HEADER_BYTES, UNREADABLE_HEADERS in table
    for name, value in table.items():
        plain = _json_value(value, 1)
        size = len(name) + len(json.dumps(plain, ensure_ascii=False))
        if len(kept) < MOST_HEADERS and size <= left and not isinstance(plain, _TooDeep):
            kept[name] = plain
            left -= size
        else:
            truncated = True
    return kept, truncated


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


class _TooDeep(str):
    """Stands for a value below the deepest level that is kept."""

    __slots__ = ()


def _json_value(value: object, depth: int) -> Json:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Decimal():
            return str(value)
        case datetime():
            return rfc3339(value)
        case bytes() | bytearray():
            return _text_or_base64(bytes(value))
        case Mapping() if depth < DEEPEST_HEADER:
            return _whole({str(k): _json_value(v, depth + 1) for k, v in value.items()})
        case list() | tuple() if depth < DEEPEST_HEADER:
            return _whole([_json_value(v, depth + 1) for v in value])
        case Mapping() | list() | tuple():
            return _TooDeep("…")
        case _:
            return str(value)


def _whole(value: Json) -> Json:
    """`value`, or the sign that something in it lies too deep, so that a header is kept whole or not."""
    inside = value.values() if isinstance(value, dict) else value
    return _TooDeep("…") if any(isinstance(v, _TooDeep) for v in inside) else value


def _text_or_base64(value: bytes) -> Json:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
