"""What the strict decoder takes, and the reason it names for everything it does not."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hammerwork.core.errors import BadMessage, Misconfigured
from hammerwork.core.ingest.decode import Decoder, check_storable, nesting_over
from hammerwork.core.message import Message

DECODER = Decoder()


def decode(body: bytes, decoder: Decoder = DECODER, **properties: Any) -> Any:
    return decoder.decode(Message(body=body, **properties)).value


def refusal(body: bytes, decoder: Decoder = DECODER, **properties: Any) -> str:
    with pytest.raises(BadMessage) as caught:
        decoder.decode(Message(body=body, **properties))
    return caught.value.reason


REFUSED = {
    "C1 empty": (b"", "empty_body"),
    "C2 spaces": (b" \t\r\n ", "empty_body"),
    "C3 truncated object": (b'{"a": 1', "not_json"),
    "C3 truncated string": (b'"abc', "not_json"),
    "C3 truncated word": (b"tru", "not_json"),
    "C3 lone minus": (b"-", "not_json"),
    "C4 two values": (b'{"a": 1} {"b": 2}', "trailing_garbage"),
    "C4 comma": (b"[1],", "trailing_garbage"),
    "C4 leading zero": (b"01", "trailing_garbage"),
    "C6 ff": (b'"\xff"', "not_utf8"),
    "C6 overlong": (b'"\xc0\xaf"', "not_utf8"),
    "C6 truncated multibyte": (b'"\xe2\x82"', "not_utf8"),
    "C6 encoded surrogate": (b'"\xed\xa0\x80"', "not_utf8"),
    "C7 utf-8 mark": (b'\xef\xbb\xbf{"a": 1}', "byte_order_mark"),
    "C7 utf-16 mark": ('{"a": 1}'.encode("utf-16"), "byte_order_mark"),
    "C7 utf-32 mark": ('{"a": 1}'.encode("utf-32"), "byte_order_mark"),
    "C7 utf-32-be mark": (b"\x00\x00\xfe\xff" + "{}".encode("utf-32-be"), "byte_order_mark"),
    "C7 utf-16 without mark": ('{"a": 1}'.encode("utf-16-le"), "not_json"),
    "C8 nul in value": (rb'{"a": "x\u0000y"}', "nul_character"),
    "C8 nul deep": (rb'[[[{"a": ["\u0000"]}]]]', "nul_character"),
    "C8 raw nul": (b'"a\x00b"', "not_json"),
    "C9 nul in key": (rb'{"a\u0000": 1}', "nul_character"),
    "C10 high surrogate": (rb'"\ud800"', "lone_surrogate"),
    "C10 low surrogate": (rb'"\uDC00x"', "lone_surrogate"),
    "C10 pair reversed": (rb'"\udc00\ud800"', "lone_surrogate"),
    "C10 surrogate in key": (rb'{"\ud83d": 1}', "lone_surrogate"),
    "C11 NaN": (b'{"a": NaN}', "not_finite"),
    "C11 Infinity": (b"[Infinity]", "not_finite"),
    "C11 -Infinity": (b"-Infinity", "not_finite"),
    "C12 1e400": (b'{"a": 1e400}', "number_out_of_range"),
    "C12 -1e400": (b"-1E+400", "number_out_of_range"),
    "C12 1e131071": (b"1e131071", "number_out_of_range"),
    "C12 1e-131071": (b"1e-131071", "number_out_of_range"),
    "C12 0e999": (b"0e999", "number_out_of_range"),
    "C12 exponent of 5000 digits": (b"1e" + b"9" * 5000, "number_out_of_range"),
    "C12 long fraction": (b"0." + b"1" * 101, "number_out_of_range"),
    "C13 101 digits": (b"1" * 101, "number_out_of_range"),
    "C13 5000 digits": (b"-" + b"1" * 5000, "number_out_of_range"),
    "C14 arrays": (b"[" * 100_000 + b"]" * 100_000, "too_deep"),
    "C14 arrays never closed": (b"[" * 100_000, "too_deep"),
    "C14 objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
    "C14 mixed": (b'[{"a":' * 50_000 + b"1" + b"}]" * 50_000, "too_deep"),
    "C14 one level over": (b"[" * 65 + b"]" * 65, "too_deep"),
    "C14 hidden behind strings": (b'["]]]\\"]]","\\\\",' + b"[" * 65 + b"]" * 65 + b"]", "too_deep"),
    "C15 duplicate": (b'{"a": 1, "b": 2, "a": 3}', "duplicate_key"),
    "C15 duplicate by escape": (rb'{"a": 1, "\u0061": 2}', "duplicate_key"),
    "C15 duplicate inside": (b'[{"x": {"a": 1, "a": 1}}]', "duplicate_key"),
    "C16 many keys": (
        b"{" + b",".join(b'"%d":0' % i for i in range(10_001)) + b"}",
        "too_many_keys",
    ),
    "C17 one byte over": (b'"' + b"x" * (1024 * 1024 - 1) + b'"', "too_large"),
    "single quotes": (b"{'a': 1}", "not_json"),
    "control character": (b'"a\nb"', "not_json"),
    "bad escape": (rb'"\x41"', "not_json"),
    "trailing comma": (b"[1,]", "not_json"),
    "full-width digit": ("\uff11".encode(), "not_json"),
    "form feed around": (b"\x0c{}", "not_json"),
}


@pytest.mark.parametrize(("body", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_body_is_refused_with_its_own_reason(body: bytes, reason: str) -> None:
    assert refusal(body) == reason


TAKEN = {
    "C5 string": (b'"text"', "text"),
    "C5 number": (b"42", 42),
    "C5 array": (b"[1, 2]", [1, 2]),
    "C5 null": (b"null", None),
    "C5 true": (b"true", True),
    "C12 minus zero": (b"-0", 0),
    "C12 exponent in range": (b"1e-300", 1e-300),
    "C12 underflow in range": (b"1e-350", 0.0),
    "C12 0e0": (b"0e0", 0.0),
    "C13 100 digits": (b"-" + b"9" * 100, -int("9" * 100)),
    "C13 more than 64 bits": (b"9223372036854775808", 2**63),
    "C14 exactly as deep as allowed": (b"[" * 64 + b"]" * 64, json.loads("[" * 64 + "]" * 64)),
    "C14 brackets in strings": (b'"' + b"[{" * 500 + b'"', "[{" * 500),
    "C14 brackets after an escaped quote": (b'"\\"' + b"[" * 500 + b'"', '"' + "[" * 500),
    "C14 many shallow": (b"[" + b",".join([b"[]"] * 500) + b"]", [[]] * 500),
    "C16 one long key": (b'{"' + b"k" * 1_000_000 + b'": 1}', {"k" * 1_000_000: 1}),
    "C17 exactly as large as allowed": (b'"' + b"x" * (1024 * 1024 - 2) + b'"', "x" * (1024 * 1024 - 2)),
    "escaped pair": (rb'"\ud83d\ude00"', "\U0001f600"),
    "escaped backslash before u0000": (rb'"\\u0000"', r"\u0000"),
    "escaped backslash before ud800": (rb'"\\ud800"', r"\ud800"),
}


@pytest.mark.parametrize(("body", "value"), TAKEN.values(), ids=TAKEN.keys())
def test_a_good_body_is_taken(body: bytes, value: object) -> None:
    assert decode(body) == value


def test_the_text_is_the_body_as_it_came_without_the_space_around_it() -> None:
    decoded = DECODER.decode(Message(body=b' \n{"a":  1.50, "b": 1e2}\t'))
    assert decoded.text == '{"a":  1.50, "b": 1e2}'
    assert decoded.value == {"a": 1.5, "b": 100.0}


# --- C18 compression -----------------------------------------------------------------------------

PLAIN = json.dumps({"rows": list(range(200))}).encode()


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", " x-gzip "])
def test_gzip_is_unpacked(encoding: str) -> None:
    assert decode(gzip.compress(PLAIN), content_encoding=encoding) == {"rows": list(range(200))}


@pytest.mark.parametrize("encoding", ["", "identity", "utf-8", "UTF8"])
def test_identity_and_a_character_set_are_no_compression(encoding: str) -> None:
    assert decode(b"[1]", content_encoding=encoding) == [1]


BOMB = gzip.compress(b"[" + b" " * 50_000_000 + b"]", compresslevel=9)
PACKED = {
    "not gzip": (PLAIN, "bad_gzip"),
    "empty": (b"", "bad_gzip"),
    "truncated": (gzip.compress(PLAIN)[:-9], "bad_gzip"),
    "bad checksum": (gzip.compress(PLAIN)[:-8] + b"\0" * 8, "bad_gzip"),
    "bytes after": (gzip.compress(PLAIN) + b"x", "bad_gzip"),
    "double": (gzip.compress(gzip.compress(PLAIN)), "bad_gzip"),
    "bomb": (BOMB, "compression_bomb"),
    "small bomb": (gzip.compress(b"[" + b" " * 100_000 + b"]"), "compression_bomb"),
    "honest but large": (gzip.compress(json.dumps(list(range(200_000))).encode()), "too_large"),
    "packed too large": (b"\x1f\x8b" + b"x" * 1024 * 1024, "too_large"),
}


@pytest.mark.parametrize(("body", "reason"), PACKED.values(), ids=PACKED.keys())
def test_bad_gzip_is_refused(body: bytes, reason: str) -> None:
    assert refusal(body, content_encoding="gzip") == reason


def test_a_bomb_is_never_unpacked_whole() -> None:
    tracemalloc.start()
    try:
        refusal(BOMB, content_encoding="gzip")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "lzma", "\x00"])
def test_an_unknown_content_encoding_is_refused(encoding: str) -> None:
    assert refusal(b"{}", content_encoding=encoding) == "unknown_content_encoding"


# --- C19 content types ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/cloudevents+json",
        "text/json",
        "text/plain",
        "application/octet-stream",
        "application/vnd.acme.order",
        "nonsense",
    ],
)
def test_json_is_read_under_a_json_or_vague_label(content_type: str | None) -> None:
    assert decode(b"{}", content_type=content_type) == {}


@pytest.mark.parametrize(
    "content_type",
    [
        "text/xml",
        "application/xml; charset=utf-8",
        "application/soap+xml",
        "image/png",
        "text/html",
        "application/x-protobuf",
        "application/x-python-serialize",
        "application/cbor",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
    ],
)
def test_json_under_another_label_is_refused_unless_labels_do_not_count(content_type: str) -> None:
    assert refusal(b"{}", content_type=content_type) == "unsupported_content_type"
    assert decode(b"{}", Decoder(check_content_type=False), content_type=content_type) == {}


def test_xml_under_a_json_label_is_not_json() -> None:
    assert refusal(b"<order/>", content_type="application/json") == "not_json"


# --- other formats -------------------------------------------------------------------------------


def test_text_becomes_one_json_string() -> None:
    decoded = Decoder(format="text").decode(Message(body='line "é"\n'.encode(), content_type="text/csv"))
    assert decoded.value == 'line "é"\n'
    assert json.loads(decoded.text) == decoded.value


def test_text_is_refused_when_it_is_not_storable_text() -> None:
    decoder = Decoder(format="text")
    assert refusal(b"\xff", decoder) == "not_utf8"
    assert refusal(b"a\x00b", decoder) == "nul_character"
    assert refusal(b"\xef\xbb\xbfa", decoder) == "byte_order_mark"


def test_bytes_become_base64() -> None:
    decoded = Decoder(format="bytes").decode(Message(body=b"\x00\xff", content_type="image/png"))
    assert decoded.value == {"base64": "AP8="}
    assert json.loads(decoded.text) == decoded.value


def test_limits_that_let_nothing_through_are_misconfigured() -> None:
    with pytest.raises(Misconfigured):
        Decoder(max_bytes=0)


def test_limits_are_the_decoders_own() -> None:
    strict = Decoder(max_bytes=20, max_depth=1, max_digits=3, max_exponent=2, max_keys=1)
    assert decode(b"[999]", strict) == [999]
    assert refusal(b"[1000]", strict) == "number_out_of_range"
    assert refusal(b"1e3", strict) == "number_out_of_range"
    assert refusal(b"[[]]", strict) == "too_deep"
    assert refusal(b'{"a":1,"b":2}', strict) == "too_many_keys"
    assert refusal(b" " * 21, strict) == "too_large"


# --- properties ----------------------------------------------------------------------------------

storable_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**99), 10**99)
    | st.floats(allow_nan=False, allow_infinity=False)
    | storable_text,
    lambda inner: st.lists(inner) | st.dictionaries(storable_text, inner),
    max_leaves=30,
)


@given(json_values, st.booleans(), st.sampled_from([None, 1]))
def test_whatever_json_dumps_writes_is_read_back(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    decoded = DECODER.decode(Message(body=text.encode()))
    assert decoded.value == value
    assert decoded.text == text
    check_storable(decoded.value, "the value")


def _decode_or_refuse(body: bytes, content_encoding: str | None) -> None:
    try:
        decoded = DECODER.decode(Message(body=body, content_encoding=content_encoding))
    except BadMessage as error:
        f"{error.reason} {error.detail}".encode()
    else:
        check_storable(decoded.value, "the value")
        assert json.loads(decoded.text) == decoded.value


json_alphabet = st.lists(
    st.sampled_from(
        [
            *'{}[]:,"\\ \n-+.eE0123456789',
            "\\u",
            "0000",
            "d800",
            "dc00",
            "true",
            "null",
            "NaN",
            "é",
            '{"a":',
            '"a"',
        ]
    )
).map(lambda parts: "".join(parts).encode())


@settings(max_examples=500)
@given(st.binary() | json_alphabet, st.sampled_from([None, "gzip", "identity", "br"]))
def test_no_bytes_raise_anything_but_bad_message(body: bytes, content_encoding: str | None) -> None:
    _decode_or_refuse(body, content_encoding)


@settings(max_examples=200)
@given(st.data())
def test_damaged_gzip_raises_nothing_but_bad_message(data: st.DataObject) -> None:
    packed = bytearray(gzip.compress(PLAIN))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    _decode_or_refuse(bytes(packed), "gzip")


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(member) for member in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(member) for member in value), default=0)
    return 0


@given(json_values, st.integers(1, 8))
def test_the_scan_for_depth_agrees_with_the_value(value: Any, limit: int) -> None:
    assert nesting_over(json.dumps(value).encode(), limit) == (_depth(value) > limit)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a": ["\0"]}, "nul_character"),
        ({"a\0": 1}, "nul_character"),
        ("\ud800", "lone_surrogate"),
        ([float("nan")], "not_finite"),
        ([10**101], "number_out_of_range"),
        ({1: 2}, "not_json"),
        ([b"x"], "not_json"),
        ([{1, 2}], "not_json"),
    ],
)
def test_what_postgres_cannot_store_is_named(value: Any, reason: str) -> None:
    with pytest.raises(BadMessage) as caught:
        check_storable(value, "the value")
    assert caught.value.reason == reason


def test_a_value_inside_itself_is_too_deep() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(BadMessage, match="too_deep"):
        check_storable(endless, "the value")
