"""From a message as SQS hands it out to a Message: body, attributes as headers, identity, checksums."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, assert_never

from ...clients.identity import JsonIdentity, text_identity
from ...core.errors import BadMessage
from ...core.job import Json
from ...core.message import Message
from .envelope import Unwrapped, encoded, unwrap
from .options import AttributeIdentity, SqsOptions
from .payload import ENCODING, Pointer, read_pointer

if TYPE_CHECKING:
    from types_aiobotocore_sqs.type_defs import MessageTypeDef

CONTENT_TYPE = frozenset({"content-type", "contenttype"})
CONTENT_ENCODING = frozenset({"content-encoding", "contentencoding"})
LATEST_MILLISECOND = 253_402_300_799_000
LARGEST_COUNT = 2**31 - 2
LENGTH = struct.Struct(">I")
TEXT, BINARY = b"\x01", b"\x02"
"""How a checksum of attributes tells a text or number from bytes."""

ALSO = {
    "SequenceNumber": "sequence_number",
    "MessageDeduplicationId": "deduplication_id",
    "SenderId": "sender_id",
    "AWSTraceHeader": "trace_header",
    "DeadLetterQueueSourceArn": "redriven_from",
}
"""What is worth knowing about where a message came from, beside its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A message out of its envelope. `pointer`: where its body has to be fetched from."""

    raw: MessageTypeDef
    inner: Unwrapped
    headers: Mapping[str, Json]
    pointer: Pointer | None = None


class Reader:
    """Makes messages of one queue's deliveries. `ids_in_groups`: its deduplication ids count within their
    groups only, as in a FIFO queue of high throughput."""

    def __init__(self, options: SqsOptions, queue: str, *, ids_in_groups: bool = False) -> None:
        self._options = options
        self._queue = queue
        self._ids_in_groups = ids_in_groups

    def open(self, raw: MessageTypeDef) -> Opened:
        """Check it and take it out of its envelope. Raises BadMessage."""
        check_sums(raw)
        inner = unwrap(raw.get("Body", ""), self._options.unwrap)
        headers = {**attribute_headers(raw), **inner.headers}
        pointer = read_pointer(inner.body) if self._options.payload_buckets else None
        return Opened(raw=raw, inner=inner, headers=headers, pointer=pointer)

    def message(self, opened: Opened, body: bytes) -> Message:
        """The message with this body, its own or the one that was fetched. Raises BadMessage."""
        content_encoding = None
        if self._options.encoding == "base64":
            body, content_encoding = _from_base64(body), _named(opened.headers, CONTENT_ENCODING)
        coordinates = self._coordinates(opened.raw) | dict(opened.inner.coordinates)
        if opened.pointer is not None:
            coordinates["payload"] = str(opened.pointer)
        return self._message(
            opened.raw,
            body=body,
            id=self._identity(opened, body),
            headers=opened.headers,
            content_type=_named(opened.headers, CONTENT_TYPE),
            content_encoding=content_encoding,
            coordinates=coordinates,
        )

    def refused(self, raw: MessageTypeDef, *, pointer: Pointer | None) -> Message:
        """The message as it came, to be a dead letter."""
        return self._message(
            raw,
            body=encoded(raw.get("Body", "")),
            id=raw.get("MessageId"),
            headers=attribute_headers(raw),
            content_encoding=ENCODING if pointer is not None else None,
            coordinates=self._coordinates(raw),
        )

    def _message(self, raw: MessageTypeDef, **said: Any) -> Message:
        system = _system(raw)
        return Message(
            key=system.get("MessageGroupId"),
            timestamp=_moment(system.get("SentTimestamp")),
            attempt=_number(system.get("ApproximateReceiveCount"), LARGEST_COUNT),
            **said,
        )

    def _coordinates(self, raw: MessageTypeDef) -> dict[str, Json]:
        system = _system(raw)
        also: dict[str, Json] = {ours: system[theirs] for theirs, ours in ALSO.items() if theirs in system}
        return {"broker": "sqs", "queue": self._queue, "message_id": raw.get("MessageId"), **also}

    def _identity(self, opened: Opened, body: bytes) -> str | None:
        own = opened.raw.get("MessageId")
        match self._options.identity:
            case "message_id":
                return own
            case "deduplication_id":
                return self._deduplication_id(_system(opened.raw)) or own
            case "envelope_id":
                return opened.inner.id or own
            case AttributeIdentity(attribute=name):
                return text_identity(opened.headers.get(name)) or own
            case JsonIdentity() as pointed:
                return pointed.of(body) or own
            case other:
                assert_never(other)

    def _deduplication_id(self, system: Mapping[str, str]) -> str | None:
        given = system.get("MessageDeduplicationId")
        if given and self._ids_in_groups:
            group = system.get("MessageGroupId", "")
            return f"{len(group)}:{group}:{given}"
        return given


def attribute_headers(raw: MessageTypeDef) -> dict[str, Json]:
    """Message attributes as JSON values: text and numbers as the text that was sent, whatever it is, bytes
    as `{"base64": …}`."""
    headers: dict[str, Json] = {}
    for name, attribute in raw.get("MessageAttributes", {}).items():
        if attribute.get("DataType", "").startswith("Binary"):
            value = bytes(attribute.get("BinaryValue", b""))
            headers[name] = {"base64": base64.b64encode(value).decode("ascii")}
        else:
            headers[name] = attribute.get("StringValue", "")
    return headers


def check_sums(raw: MessageTypeDef) -> None:
    """Raise BadMessage where body or attributes are not those that SQS computed its MD5 of."""
    body = encoded(raw.get("Body", ""))
    if _differs(raw.get("MD5OfBody"), body):
        raise BadMessage("checksum_mismatch", "the body is not the one that SQS computed its MD5 of")
    attributes = raw.get("MessageAttributes")
    if attributes and _differs(raw.get("MD5OfMessageAttributes"), _summed(attributes)):
        raise BadMessage("checksum_mismatch", "the attributes are not those that SQS computed their MD5 of")


def _differs(told: str | None, content: bytes) -> bool:
    return told is not None and hashlib.md5(content, usedforsecurity=False).hexdigest() != told.lower()


def _summed(attributes: Mapping[str, Any]) -> bytes:
    """What SQS's checksum of attributes covers: names, types and values in the order of the names, each
    after its length."""
    parts = []
    for name in sorted(attributes):
        attribute = attributes[name]
        kind = attribute.get("DataType", "")
        if kind.startswith("Binary"):
            mark, value = BINARY, bytes(attribute.get("BinaryValue", b""))
        else:
            mark, value = TEXT, encoded(attribute.get("StringValue", ""))
        parts += [_counted(encoded(name)), _counted(encoded(kind)), mark, _counted(value)]
    return b"".join(parts)


def _counted(part: bytes) -> bytes:
    return LENGTH.pack(len(part)) + part


def _system(raw: MessageTypeDef) -> Mapping[str, str]:
    return raw.get("Attributes") or {}  # type: ignore[return-value]


def _named(headers: Mapping[str, Json], names: frozenset[str]) -> str | None:
    for name, value in headers.items():
        if name.lower() in names and isinstance(value, str):
            return value or None
    return None


def _from_base64(body: bytes) -> bytes:
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise BadMessage("bad_base64", str(error)) from error


def _moment(milliseconds: str | None) -> datetime | None:
    count = _number(milliseconds, LATEST_MILLISECOND)
    return None if count is None else datetime.fromtimestamp(count / 1000, UTC)


def _number(digits: str | None, most: int) -> int | None:
    if digits is None or len(digits) > 15 or not (digits.isascii() and digits.isdigit()):
        return None
    return number if (number := int(digits)) <= most else None
