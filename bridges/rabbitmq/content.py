"""What a producer may put into an AMQP 0-9-1 message, made readable whatever it is: frames that the
client would choke on, and header tables as JSON."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import struct
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import SupportsIndex

from ...core.job import Json

MOST_HEADERS = 256
MOST_HEADER_BYTES = 64 * 1024
DEEPEST_HEADER = 16
UNREADABLE_HEADERS = "hammerwork-unreadable"
"""The header that stands for a whole table that could not be decoded; its value is the start of it."""

FRAME_METHOD, FRAME_HEADER, FRAME_END = 1, 2, b"\xce"
FRAME_START = struct.Struct(">BHI")
CONTENT_START = struct.Struct(">HHQH")
CLOSE_METHOD = struct.pack(">HH", 10, 50)
DELIVER_METHOD = struct.pack(">HH", 60, 60)
FLAG_HEADERS, FLAG_TIMESTAMP = 1 << 13, 1 << 6
FLAGS_OF_ONE_BYTE = (1 << 12, 1 << 11)
LATEST_MILLISECOND = 253_402_300_799_000
LONGEST_SHORT_STRING = 255


class FrameReader(asyncio.StreamReader):
    """A stream of AMQP frames on its way to the client, which may repair those that nobody can read.

    aiormq and pamqp end the connection over a message whose properties are not UTF-8, whose timestamp
    lies beyond the year 9999 or whose headers are nested some hundred levels deep. The broker would
    deliver it again, for ever. With `repair`, such a frame is rewritten as it comes in.
    """

    def __init__(self, *, repair: bool, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._repair = repair
        self._clock = loop.time
        self._partial = b""
        self.latest = b""
        """The bytes that arrived last: where the broker says why it closes."""
        self.latest_at = loop.time()

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        received = bytes(data)
        self.latest, self.latest_at = received, self._clock()
        super().feed_data(self._repaired(received) if self._repair else received)

    def _repaired(self, data: bytes) -> bytes:
        pending, whole, start = self._partial + data, [], 0
        while len(pending) - start >= FRAME_START.size:
            size = FRAME_START.unpack_from(pending, start)[2]
            end = start + FRAME_START.size + size + len(FRAME_END)
            if end > len(pending):
                break
            whole.append(readable_frame(pending[start:end]))
            start = end
        self._partial = pending[start:]
        return b"".join(whole)


def refusal_in(received: bytes) -> str | None:
    """The text of a Connection.Close (`NOT_ALLOWED - vhost x not found`) at the end of `received`."""
    start = received.rfind(CLOSE_METHOD)
    if start < 0:
        return None
    text, _ = _short_string(received, start + len(CLOSE_METHOD) + 2)
    return text.decode("utf-8", "backslashreplace")


def readable_frame(frame: bytes) -> bytes:
    """`frame` itself, or the same with what cannot be decoded replaced. Bodies are never touched."""
    import pamqp.frame

    kind, channel, _ = FRAME_START.unpack_from(frame)
    payload = frame[FRAME_START.size : -1]
    delivers = kind == FRAME_METHOD and payload.startswith(DELIVER_METHOD)
    if kind != FRAME_HEADER and not delivers:
        return frame
    try:
        pamqp.frame.unmarshal(frame)
    except Exception:  # struct, Unicode, overflow and recursion errors all mean the same here
        repaired = _readable_delivery(payload) if delivers else _readable_properties(payload)
        return FRAME_START.pack(kind, channel, len(repaired)) + repaired + FRAME_END
    return frame


def _readable_delivery(payload: bytes) -> bytes:
    """Basic.Deliver: consumer tag, delivery tag and flag as they are; exchange and routing key readable."""
    at = len(DELIVER_METHOD)
    at += 1 + payload[at] + 8 + 1
    exchange, after = _short_string(payload, at)
    routing_key, _ = _short_string(payload, after)
    return payload[:at] + _readable_short(exchange) + _readable_short(routing_key)


def _readable_properties(payload: bytes) -> bytes:
    """A content header whose readable properties stay, in the order of the protocol's flags."""
    class_id, weight, body_size, flags = CONTENT_START.unpack_from(payload)
    kept, parts, at = flags & 0xFFFC, [], CONTENT_START.size
    for bit in (1 << position for position in range(15, 1, -1)):
        if not flags & bit:
            continue
        part, at = _readable_property(payload, at, bit)
        if part is None:
            kept &= ~bit
        else:
            parts.append(part)
    return CONTENT_START.pack(class_id, weight, body_size, kept) + b"".join(parts)


def _readable_property(payload: bytes, at: int, bit: int) -> tuple[bytes | None, int]:
    """One property made readable (None: dropped), and where the next one begins."""
    if bit == FLAG_HEADERS:
        end = at + 4 + int.from_bytes(payload[at : at + 4], "big")
        return _readable_table(payload[at:end]), end
    if bit == FLAG_TIMESTAMP:
        in_range = int.from_bytes(payload[at : at + 8], "big") <= LATEST_MILLISECOND
        return (payload[at : at + 8] if in_range else None), at + 8
    if bit in FLAGS_OF_ONE_BYTE:
        return payload[at : at + 1], at + 1
    text, after = _short_string(payload, at)
    return _readable_short(text), after


def _readable_table(table: bytes) -> bytes:
    import pamqp.decode
    import pamqp.encode

    try:
        pamqp.decode.field_table(table)
    except Exception:  # as in readable_frame
        return pamqp.encode.field_table({UNREADABLE_HEADERS: bytearray(table[4 : 4 + 1024])})
    return table


def _readable_short(text: bytes) -> bytes:
    """A short string in UTF-8; different bytes stay different, because one of them may be an identity."""
    readable = text.decode("utf-8", "backslashreplace").encode()
    if len(readable) > LONGEST_SHORT_STRING:
        readable = f"sha256:{hashlib.sha256(text).hexdigest()}".encode()
    return bytes([len(readable)]) + readable


def _short_string(data: bytes, at: int) -> tuple[bytes, int]:
    end = at + 1 + data[at]
    return data[at + 1 : end], end


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


def text_identity(value: Json) -> str | None:
    """An identity from a JSON value: text that is not empty, or a whole number; anything else is none."""
    match value:
        case bool():
            return None
        case int():
            return str(value)
        case str() if value:
            return value
        case _:
            return None


def json_pointer(body: bytes, pointer: str) -> Json:
    """What an RFC 6901 pointer points at in a JSON body; None where there is no such thing."""
    try:
        here: Json = json.loads(body)
        for part in pointer.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            here = here[int(name)] if isinstance(here, list) else here[name]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return None
    return here
