"""What an HTTP request carries: one message, or several in a batch; plain JSON or CloudEvents 1.0."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import unquote

from ...core.errors import BadMessage
from ...core.ingest.decode import Decoder, utf8_text
from ...core.job import Json
from ...core.message import Message

Identity = Literal["idempotency-key", "cloud-event", "webhook-id", "x-github-delivery"]

JSON_LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
EVENT = "application/cloudevents+json"
EVENT_BATCH = "application/cloudevents-batch+json"

WITHHELD = frozenset(
    {"authorization", "proxy-authorization", "cookie", "host", "connection", "keep-alive", "te", "trailer"}
    | {
        "transfer-encoding",
        "content-length",
        "content-encoding",
        "content-type",
        "upgrade",
        "expect",
        "accept",
    }
    | {"accept-encoding", "idempotency-key"}
)
SECRET_ENDINGS = ("authorization", "api-key", "apikey", "token", "secret", "password", "cookie")
"""Headers that a job does not carry: what concerns one connection only, and what looks like a secret."""

_REQUIRED = ("id", "source", "type", "specversion")
_ATTRIBUTE = re.compile(r"[a-z0-9]+")
_SPACE = re.compile(r"[ \t\n\r]*")
# Finds where values end. Numbers become floats, which have no limit of digits; what is wrong inside a
# value is for the intake to judge.
_READER = json.JSONDecoder(parse_int=float, parse_constant=float)


class Unreadable(BadMessage):
    """The request cannot be cut into messages, so it is refused as a whole; `status` is HTTP's."""

    def __init__(self, reason: str, detail: str = "", *, status: int = 400) -> None:
        super().__init__(reason, detail)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A request whose body has been read, and not yet unpacked. Header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    batch: bool
    """The sender asked for the body to be taken as an array of messages."""
    received: datetime

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """How requests are cut into messages.

    `identities` says, in order, where a message's identity is looked for; `unpacker` bounds what a
    compressed batch may unpack to; `max_batch` is the number of messages in one request.
    """

    unpacker: Decoder
    max_batch: int
    identities: tuple[Identity, ...] = ("idempotency-key", "cloud-event", "webhook-id", "x-github-delivery")

    def single(self, incoming: Incoming) -> Message | None:
        """The one message of this request, or None when it is a batch. Raises Unreadable."""
        kind = incoming.media_type
        if kind == EVENT:
            return self._event(incoming, _members(self._text(incoming)), None)
        if kind == EVENT_BATCH or kind in JSON_LINES or incoming.batch:
            return None
        if kind.startswith("application/cloudevents"):
            raise Unreadable("unsupported_content_type", f"{kind[:80]!r}", status=415)
        if any(f"ce-{name}" in incoming.headers for name in _REQUIRED):
            return self._binary_event(incoming)
        return self._message(incoming, incoming.body, encoding=incoming.headers.get("content-encoding"))

    def batch(self, incoming: Incoming) -> list[Message | BadMessage]:
        """The messages of a batch in their order; an event that is not one is a BadMessage in its place.

        Raises Unreadable.
        """
        kind = incoming.media_type
        if kind in JSON_LINES:
            lines = self._unpacked(incoming).split(b"\n")
            return self._messages(incoming, [line for line in lines if line.strip()])
        texts = self._items(incoming)
        if kind == EVENT_BATCH:
            return [self._event_or_refusal(incoming, text, index) for index, text in enumerate(texts)]
        return self._messages(incoming, [text.encode() for text in texts])

    def _messages(self, incoming: Incoming, bodies: list[bytes]) -> list[Message | BadMessage]:
        if len(bodies) > self.max_batch:
            raise Unreadable(
                "batch_too_long", f"{self.max_batch} messages are allowed in a batch", status=413
            )
        return [self._message(incoming, body, index=index) for index, body in enumerate(bodies)]

    def _message(
        self, incoming: Incoming, body: bytes, *, index: int | None = None, encoding: str | None = None
    ) -> Message:
        headers = incoming.headers
        return Message(
            body=body,
            id=self._identity(headers, index, None),
            headers=carried_headers(headers),
            content_type=headers.get("content-type") if index is None else "application/json",
            content_encoding=encoding,
            correlation_id=headers.get("x-correlation-id"),
            timestamp=incoming.received,
            coordinates=_coordinates(incoming, index),
        )

    def _event_or_refusal(self, incoming: Incoming, text: str, index: int) -> Message | BadMessage:
        try:
            return self._event(incoming, _members(text), index)
        except Unreadable as error:
            return error

    def _event(self, incoming: Incoming, members: dict[str, str], index: int | None) -> Message:
        """An event in structured mode, from its members as JSON texts."""
        data = members.pop("data", None)
        binary = members.pop("data_base64", None)
        if data is not None and binary is not None:
            raise Unreadable("bad_cloud_event", "data and data_base64 exclude each other")
        attributes = {
            name: value for name, text in members.items() if (value := _attribute(name, text)) is not None
        }
        content_type: Json = "application/json"
        body = (data or "null").encode()
        if binary is not None:
            body, content_type = _from_base64(binary), attributes.get("datacontenttype")
        return self._of_event(incoming, attributes, body, content_type, None, index)

    def _binary_event(self, incoming: Incoming) -> Message:
        attributes: dict[str, Json] = {
            name.removeprefix("ce-"): unquote(value)
            for name, value in incoming.headers.items()
            if name.startswith("ce-")
        }
        headers = incoming.headers
        return self._of_event(
            incoming,
            attributes,
            incoming.body,
            headers.get("content-type"),
            headers.get("content-encoding"),
            None,
        )

    def _of_event(
        self,
        incoming: Incoming,
        attributes: dict[str, Json],
        body: bytes,
        content_type: Json,
        content_encoding: str | None,
        index: int | None,
    ) -> Message:
        check_event(attributes)
        carried = carried_headers(incoming.headers)
        for name, value in attributes.items():
            carried[f"ce-{name}"] = value
        for name in ("traceparent", "tracestate"):
            if name in attributes:
                carried.setdefault(name, attributes[name])
        key = attributes.get("partitionkey")
        # A source is a URI reference and holds no space, so two events never share an identity.
        identity = f"{attributes['source']} {attributes['id']}"
        return Message(
            body=body,
            id=self._identity(incoming.headers, index, identity),
            key=key if isinstance(key, str) else None,
            headers=carried,
            content_type=content_type if isinstance(content_type, str) else None,
            content_encoding=content_encoding,
            correlation_id=incoming.headers.get("x-correlation-id"),
            timestamp=_time(attributes.get("time")) or incoming.received,
            coordinates=_coordinates(incoming, index),
        )

    def _identity(self, headers: Mapping[str, str], index: int | None, event: str | None) -> str | None:
        """The first identity that is there. In a batch an event has its own; any other message has the
        request's, with its place."""
        if index is not None and event is not None:
            return event
        for where in self.identities:
            found = event if where == "cloud-event" else headers.get(where, "").strip()
            if where == "idempotency-key" and found and len(found) > 1 and found[0] == found[-1] == '"':
                found = found[1:-1]  # the draft writes the key as a quoted string, most senders do not
            if found:
                return found if index is None else f"{found}/{index}"
        return None

    def _items(self, incoming: Incoming) -> list[str]:
        kind = incoming.media_type
        if kind not in ("", "application/json", "text/json") and not kind.endswith("+json"):
            raise Unreadable(
                "unsupported_content_type", f"a batch is JSON or NDJSON, not {kind[:80]!r}", status=415
            )
        return _items(self._text(incoming), self.max_batch)

    def _text(self, incoming: Incoming) -> str:
        try:
            return utf8_text(self._unpacked(incoming))
        except Unreadable:
            raise
        except BadMessage as error:
            raise Unreadable(error.reason, error.detail) from error

    def _unpacked(self, incoming: Incoming) -> bytes:
        try:
            return self.unpacker.unpack(incoming.body, incoming.headers.get("content-encoding"))
        except BadMessage as error:
            status = {"too_large": 413, "compression_bomb": 413, "unknown_content_encoding": 415}
            raise Unreadable(error.reason, error.detail, status=status.get(error.reason, 400)) from error


def check_event(attributes: Mapping[str, Json]) -> None:
    """Raise Unreadable for attributes that no CloudEvent of version 1.0 has."""
    for name in _REQUIRED:
        value = attributes.get(name)
        if not isinstance(value, str) or not value:
            raise Unreadable("bad_cloud_event", f"the attribute {name} is missing or is not text")
    if attributes["specversion"] != "1.0":
        raise Unreadable("bad_cloud_event", f"specversion {str(attributes['specversion'])[:20]!r} is not 1.0")
    for name in attributes:
        if _ATTRIBUTE.fullmatch(name) is None:
            raise Unreadable("bad_cloud_event", f"no attribute may be called {name[:40]!r}")


def carried_headers(headers: Mapping[str, str]) -> dict[str, Json]:
    """The request's headers as a job carries them, without secrets; see Message.headers for bytes."""
    return {name: _header_value(value) for name, value in headers.items() if _carried(name)}


def _carried(name: str) -> bool:
    return name not in WITHHELD and not name.endswith(SECRET_ENDINGS)


def _header_value(value: str) -> Json:
    if value.isascii():
        return value
    raw = value.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode("ascii")}


def _coordinates(incoming: Incoming, index: int | None) -> dict[str, Json]:
    place: dict[str, Json] = {"broker": "http", "path": incoming.path}
    return place if index is None else place | {"index": index}


def _attribute(name: str, text: str) -> Json:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable("bad_cloud_event", f"the attribute {name[:40]!r} cannot be read") from error
    if value is not None and not isinstance(value, str | bool | int):
        raise Unreadable("bad_cloud_event", f"the attribute {name[:40]!r} is a {type(value).__name__}")
    return value


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(json.loads(text), validate=True)
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise Unreadable("bad_cloud_event", "data_base64 is not base64") from error


def _time(value: Json) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return time if time.tzinfo is not None else None


# --- cutting JSON where its values end, so that every message keeps the very text it came with ------


def _items(text: str, most: int) -> list[str]:
    """The elements of a JSON array, each as its own text."""
    items: list[str] = []
    position = _enter(text, "[", "]")
    while position is not None:
        if len(items) == most:
            raise Unreadable("batch_too_long", f"{most} messages are allowed in a batch", status=413)
        end = _value_end(text, position)
        items.append(text[position:end])
        position = _advance(text, end, "]")
    return items


def _members(text: str) -> dict[str, str]:
    """The members of a JSON object, each value as its own text."""
    members: dict[str, str] = {}
    position = _enter(text, "{", "}")
    while position is not None:
        end = _value_end(text, position)
        name = json.loads(text[position:end]) if text[position] == '"' else None
        colon = _skip(text, end)
        if not isinstance(name, str) or not text.startswith(":", colon):
            raise Unreadable("not_json", f"a name and a colon are expected at character {position}")
        if name in members:
            raise Unreadable("duplicate_key", f"{name[:80]!r} occurs twice in the event")
        start = _skip(text, colon + 1)
        end = _value_end(text, start)
        members[name] = text[start:end]
        position = _advance(text, end, "}")
    return members


def _enter(text: str, opening: str, closing: str) -> int | None:
    """Where the first element begins; None when there is none."""
    start = _skip(text, 0)
    if not text.startswith(opening, start):
        kind = "an array" if opening == "[" else "an object"
        raise Unreadable("not_json" if start < len(text) else "empty_body", f"the body is not {kind}")
    first = _skip(text, start + 1)
    if text.startswith(closing, first):
        _leave(text, first)
        return None
    return first


def _advance(text: str, end: int, closing: str) -> int | None:
    """Where the next element begins after one that ends at `end`; None when there is none."""
    position = _skip(text, end)
    if text.startswith(",", position):
        return _skip(text, position + 1)
    if text.startswith(closing, position):
        _leave(text, position)
        return None
    raise Unreadable("not_json", f"a comma or {closing} is expected at character {position}")


def _leave(text: str, closing: int) -> None:
    if _skip(text, closing + 1) != len(text):
        raise Unreadable("trailing_garbage", f"the JSON value ends at character {closing + 1}")


def _value_end(text: str, position: int) -> int:
    try:
        return _READER.raw_decode(text, position)[1]
    except json.JSONDecodeError as error:
        raise Unreadable("not_json", f"{error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise Unreadable("too_deep", "the body nests too deep to be read") from error


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position
