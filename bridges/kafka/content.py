"""What a producer may put into a Kafka record, made readable whatever it is."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, assert_never

from ...clients.identity import HeaderIdentity, JsonIdentity, text_identity
from ...core.job import Json
from ...core.message import NOTHING, Message

MOST_HEADERS = 256
MOST_HEADER_BYTES = 64 * 1024
LATEST_MILLISECOND = 253_402_300_799_000

Identity = str | HeaderIdentity | JsonIdentity


def read_record(record: Any, identity: Identity) -> Message:
    """A message of an aiokafka ConsumerRecord.

    A key that is no text, or holds a NUL, which Postgres cannot store, is kept as `key_base64` among the
    coordinates. A time that no calendar knows is none.
    """
    coordinates: dict[str, Json] = {
        "broker": "kafka",
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
    }
    headers, key, body = NOTHING, None, record.value
    if record.headers:
        headers, truncated = json_headers(record.headers)
        if truncated:
            coordinates["headers_truncated"] = True
    if record.key is not None and (key := _text(record.key)) is None:
        coordinates["key_base64"] = base64.b64encode(record.key).decode()
    return Message(
        body=body or b"",
        id=None if identity == "offset" else _identity(identity, headers, body),
        key=key,
        headers=headers,
        content_type=_said(headers, "content-type") if headers else None,
        content_encoding=_said(headers, "content-encoding") if headers else None,
        timestamp=_moment(record.timestamp),
        coordinates=coordinates,
        tombstone=body is None and record.key is not None,
    )


def json_headers(given: Iterable[tuple[str, bytes | None]]) -> tuple[dict[str, Json], bool]:
    """Headers as JSON values, and whether some had to be left out.

    A header that comes several times is a list in its order. At most 256 values and about 64 KiB are kept.
    """
    kept: dict[str, Json] = {}
    count, left, truncated = 0, MOST_HEADER_BYTES, False
    repeated: set[str] = set()
    for name, value in given:
        size = len(name) + len(value or b"")
        if count == MOST_HEADERS or size > left:
            truncated = True
            continue
        count += 1
        left -= size
        plain = _text_or_base64(value)
        if name not in kept:
            kept[name] = plain
        elif name in repeated:
            kept[name].append(plain)
        else:
            kept[name] = [kept[name], plain]
            repeated.add(name)
    return kept, truncated


def _identity(identity: Identity, headers: Mapping[str, Json], body: bytes | None) -> str | None:
    match identity:
        case str():
            return None
        case HeaderIdentity(header=name):
            return text_identity(headers.get(name))
        case JsonIdentity() as pointed:
            return None if body is None else pointed.of(body)
        case other:
            assert_never(other)


def _said(headers: Mapping[str, Json], name: str) -> str | None:
    value = headers.get(name)
    return value if isinstance(value, str) and value else None


@lru_cache(maxsize=1024)  # what was sent together has few times
def _moment(milliseconds: int | None) -> datetime | None:
    if milliseconds is None or not 0 <= milliseconds <= LATEST_MILLISECOND:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _text(value: bytes) -> str | None:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _text_or_base64(value: bytes | None) -> Json:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
