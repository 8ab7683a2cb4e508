"""From a message's bytes to a JSON value, strictly: what Postgres, Python and the next reader would
understand differently is refused here, each time with its own reason."""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, NoReturn, Protocol

from ..errors import BadMessage, Misconfigured
from ..job import Json
from ..message import Message

Format = Literal["json", "text", "bytes"]
"""`json`: the body is one JSON text. `text`: UTF-8, taken as one JSON string. `bytes`: anything, taken
as `{"base64": "…"}`."""

MAX_RATIO = 100
"""A gzip body that grows more than this is a bomb; JSON logs compress about 10 to 30 times."""

MAX_DEPTH = 64

IDENTITY = frozenset({"", "identity", "utf-8", "utf8", "us-ascii", "binary"})
"""Kombu and Celery put the character set where AMQP wants the compression."""

GZIP = frozenset({"gzip", "x-gzip"})

WHITESPACE = " \t\n\r"

_OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
"""Of UTF-16 and UTF-32: none of them is UTF-8."""
_SUSPECT_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_NOT_JSON = re.compile(
    r"(image|audio|video|font|model|multipart)/.*"
    r"|.*[/+](xml|cbor|msgpack|protobuf|avro|zip|gzip|bson)"
    r"|text/(html|csv|css)"
    r"|application/(xhtml\+xml|pdf|x-www-form-urlencoded|x-python-serialize|pickle|x-yaml|yaml"
    r"|x-msgpack|vnd\.msgpack|x-protobuf|vnd\.google\.protobuf|x-avro|vnd\.apache\.avro|wasm|grpc.*)"
)


class Decoded(NamedTuple):
    """A message's content: the JSON value, and the exact text it was read from, fit for jsonb."""

    value: Json
    text: str


@dataclass(frozen=True, slots=True)
class Plain:
    """A body as its schema reads it: JSON text, not yet checked, and what its schema asks of the value."""

    text: bytes
    check: Callable[[Json], None] | None = None
    """Raises BadMessage."""


class SchemaReader(Protocol):
    """Reads bodies that need a schema. The core knows no schema language and no registry: an upper floor
    implements this."""

    async def ready(self, bodies: Iterable[bytes]) -> None:
        """Called once for all bodies of a batch before `plain` is called for them: learn the schemas that
        they name, as far as they are not known. Raises Unavailable or Misconfigured, which hold the batch;
        a schema that does not exist is no reason to raise."""
        ...

    def plain(self, body: bytes) -> Plain:
        """The body as JSON. Raises BadMessage; Unavailable for a schema that `ready` was not asked for."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """How strictly bodies are read.

    `max_bytes` bounds the body as it came, again when it is unpacked, and again as JSON text; `max_depth` the
    nesting, `max_digits` the digits of one number, `max_exponent` its power of ten, `max_keys` the keys of
    one object. `check_content_type=False` reads bodies whose label says XML or the like all the same.
    `schemas` makes JSON of bodies that are something else, or checks JSON; then labels do not matter.
    """

    format: Format = "json"
    max_bytes: int = 1024 * 1024
    max_depth: int = MAX_DEPTH
    max_digits: int = 100
    max_exponent: int = 400
    max_keys: int = 10_000
    check_content_type: bool = True
    schemas: SchemaReader | None = None
    _scan: Callable[[str, int], tuple[Json, int]] = field(init=False, repr=False, compare=False)
    """Reads one JSON value from there; where it ends. Raises StopIteration with the place of what is none."""

    def __post_init__(self) -> None:
        limits = (self.max_bytes, self.max_depth, self.max_digits, self.max_exponent, self.max_keys)
        if min(limits) < 1:
            raise Misconfigured("the limits of a decoder must be 1 or more")
        if self.schemas is not None and self.format != "json":
            raise Misconfigured("a schema reader makes JSON", hint="leave format='json'")
        reader = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_int=self._integer,
            parse_float=self._float,
            parse_constant=_refuse_constant,
        )
        object.__setattr__(self, "_scan", reader.scan_once)  # type: ignore[attr-defined]

    async def ready(self, messages: Iterable[Message]) -> None:
        """To be awaited once for all messages of a batch before they are decoded, which then never waits.
        Raises Unavailable or Misconfigured when a schema cannot be had for now; no message is to blame."""
        if self.schemas is not None:
            await self.schemas.ready(self._unpacked(messages))

    def decode(self, message: Message) -> Decoded:
        """The content of a message. Raises BadMessage; nothing else, whatever the bytes are."""
        body = message.body
        if message.content_encoding is not None:
            body = self.unpack(body, message.content_encoding)
        elif len(body) > self.max_bytes:
            raise _too_large(len(body), self.max_bytes)
        if self.schemas is not None:
            return self._by_schema(self.schemas, body)
        match self.format:
            case "json":
                content_type = message.content_type
                if content_type is not None and content_type != "application/json":
                    self._accept_content_type(content_type)
                return self._json(body)
            case "text":
                text = utf8_text(body)
                check_storable(text, "the text")
                return Decoded(text, json.dumps(text, ensure_ascii=False))
            case "bytes":
                encoded = base64.b64encode(body).decode("ascii")
                return Decoded({"base64": encoded}, f'{{"base64": "{encoded}"}}')

    def unpack(self, body: bytes, content_encoding: str | None) -> bytes:
        """The body without its compression (gzip only); raises BadMessage.

        Unpacking stops at the first byte over `max_bytes` or over MAX_RATIO times what was read.
        """
        if len(body) > self.max_bytes:
            raise _too_large(len(body), self.max_bytes)
        encoding = (content_encoding or "").strip().lower()
        if encoding in IDENTITY:
            return body
        if encoding not in GZIP:
            raise BadMessage("unknown_content_encoding", f"{encoding[:80]!r}; known are identity and gzip")
        stream = zlib.decompressobj(wbits=31)
        try:
            plain = stream.decompress(body, self.max_bytes + 1)
        except zlib.error as error:
            raise BadMessage("bad_gzip", str(error)) from error
        read = len(body) - len(stream.unconsumed_tail)
        if len(plain) > MAX_RATIO * read:
            raise BadMessage("compression_bomb", f"{read} bytes unpack to more than {MAX_RATIO} times that")
        if len(plain) > self.max_bytes:
            raise _too_large(len(plain), self.max_bytes)
        if not stream.eof:
            raise BadMessage("bad_gzip", "the stream ends before its end")
        if stream.unused_data:
            raise BadMessage("bad_gzip", "bytes follow the end of the stream")
        if plain.startswith(b"\x1f\x8b"):
            raise BadMessage("bad_gzip", "the body is compressed twice")
        return plain

    def _unpacked(self, messages: Iterable[Message]) -> Iterable[bytes]:
        for message in messages:
            if message.content_encoding is None:
                yield message.body
            else:
                with suppress(BadMessage):  # which `decode` tells
                    yield self.unpack(message.body, message.content_encoding)

    def _by_schema(self, schemas: SchemaReader, body: bytes) -> Decoded:
        plain = schemas.plain(body)
        if len(plain.text) > self.max_bytes:
            raise _too_large(len(plain.text), self.max_bytes)
        decoded = self._json(plain.text)
        if plain.check is not None:
            plain.check(decoded.value)
        return decoded

    def _json(self, body: bytes) -> Decoded:
        if body.count(b"[") + body.count(b"{") > self.max_depth and nesting_over(body, self.max_depth):
            raise BadMessage("too_deep", f"more than {self.max_depth} levels")
        text = utf8_text(body).strip(WHITESPACE)
        if not text:
            raise BadMessage("empty_body", "no bytes" if not body else "nothing but white space")
        try:
            value, end = self._scan(text, 0)
        except json.JSONDecodeError as error:
            raise BadMessage("not_json", f"{error.msg} at character {error.pos}") from error
        except StopIteration as error:
            raise BadMessage("not_json", f"Expecting value at character {error.value}") from error
        if end != len(text):
            raise BadMessage("trailing_garbage", f"the JSON value ends at character {end} of {len(text)}")
        if "\\u" in text and _SUSPECT_ESCAPE.search(text) is not None:
            check_storable(value, "the body", self.max_depth)
        return Decoded(value, text)

    def _accept_content_type(self, content_type: str) -> None:
        if self.check_content_type:
            kind = content_type.partition(";")[0].strip().lower()
            if _NOT_JSON.fullmatch(kind) is not None:
                raise BadMessage("unsupported_content_type", f"{kind[:80]!r} is not JSON")

    def _object(self, pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        if len(pairs) > self.max_keys:
            raise BadMessage("too_many_keys", f"an object has {len(pairs)}; {self.max_keys} are allowed")
        value = dict(pairs)
        if len(value) != len(pairs):
            raise BadMessage("duplicate_key", f"{_first_repeated(pairs)[:80]!r} occurs twice in one object")
        return value

    def _integer(self, digits: str) -> int:
        if len(digits) > self.max_digits and len(digits.lstrip("-")) > self.max_digits:
            raise BadMessage("number_out_of_range", f"an integer has {len(digits)} digits")
        return int(digits)

    def _float(self, digits: str) -> float:
        mantissa, _, exponent = digits.lower().partition("e")
        if len(mantissa) > self.max_digits and len(mantissa.lstrip("-").replace(".", "")) > self.max_digits:
            raise BadMessage("number_out_of_range", f"a number has more than {self.max_digits} digits")
        if exponent and (len(exponent) > 8 or abs(int(exponent)) > self.max_exponent):
            raise BadMessage("number_out_of_range", f"a number has the exponent {exponent[:20]}")
        value = float(digits)
        if not math.isfinite(value):
            raise BadMessage("number_out_of_range", "a number is beyond what a 64-bit float holds")
        return value


def nesting_over(body: bytes, depth: int) -> bool:
    """Whether brackets outside strings nest deeper than `depth`, without parsing and without a Python
    loop over the bytes: strings are cut away, then innermost pairs, one level a pass.

    Text that is not JSON may give either answer, but never False for one that would nest a parser
    deeper.
    """
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(body.split(b'"')[::2])
    brackets = outside.translate(_TO_SQUARE, _NOT_BRACKETS)
    for level in range(depth):
        inner = brackets.replace(b"[]", b"")
        if len(inner) == len(brackets):
            return level + inner.count(b"[") > depth
        brackets = inner
    return b"[" in brackets


_TO_SQUARE = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def check_storable(value: Json, what: str, levels: int = MAX_DEPTH) -> None:
    """Raise BadMessage for a value that Postgres cannot store as jsonb or text: NUL characters, lone
    surrogates, NaN, what is not JSON at all, and nesting over `levels`."""
    match value:
        case None | bool():
            return
        case str():
            _check_text(value, what)
        case int():
            if value.bit_length() > 332:  # 100 digits
                raise BadMessage("number_out_of_range", f"in {what}")
        case float():
            if not math.isfinite(value):
                raise BadMessage("not_finite", f"in {what}")
        case dict() | list() | tuple():
            if levels == 0:
                raise BadMessage("too_deep", f"in {what}")
            members: Iterable[Json] = value
            if isinstance(value, dict):
                try:
                    keys = "".join(value)
                except TypeError as error:
                    raise BadMessage("not_json", f"{what} has a key that is not text") from error
                _check_text(keys, "a key of ", what)
                members = value.values()
            _check_text("".join([member for member in members if type(member) is str]), what)
            for member in members:
                if type(member) not in _CHECKED:
                    check_storable(member, what, levels - 1)
        case _:
            raise BadMessage("not_json", f"{what} holds a {type(value).__name__}")


_CHECKED = frozenset({str, bool, type(None)})
"""The types of a container's members that need no look of their own: its texts are looked at all at once."""


def _check_text(text: str, *where: str) -> None:
    if "\0" in text:
        raise BadMessage("nul_character", f"in {''.join(where)}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadMessage("lone_surrogate", f"in {''.join(where)}") from error


def utf8_text(body: bytes) -> str:
    """The text of these bytes; raises BadMessage when they are not UTF-8 or begin with a mark."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        if body.startswith(_OTHER_MARKS):
            raise _marked() from error
        raise BadMessage("not_utf8", f"{error.reason} at byte {error.start}") from error
    if text.startswith("\ufeff"):
        raise _marked()
    return text


def _marked() -> BadMessage:
    return BadMessage("byte_order_mark", "UTF-8 without a byte order mark is expected")


def _first_repeated(pairs: list[tuple[str, Json]]) -> str:
    count = Counter(key for key, _ in pairs)
    return count.most_common(1)[0][0]


def _refuse_constant(name: str) -> NoReturn:
    raise BadMessage("not_finite", f"{name} is not JSON")


def _too_large(size: int, limit: int) -> BadMessage:
    return BadMessage("too_large", f"{size} bytes or more; {limit} are allowed")
