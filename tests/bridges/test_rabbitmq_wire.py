"""The reader of deliveries beside the client's own: the same messages or a refusal, in whatever pieces."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from aiormq import spec
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import decode as pamqp_decode
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from hammerwork.bridges.rabbitmq.content import Garbled, Properties, read_properties
from hammerwork.bridges.rabbitmq.deliveries import Delivered, DeliveryParser
from hammerwork.bridges.rabbitmq.wire import SIGN_OF_LIFE, FrameReader

CHANNEL = 1
LARGEST = 40
"""Bytes of a body frame, so that bodies take several."""

short_text = st.text(max_size=12) | st.sampled_from(["", "application/json", "ö" * 60, "x" * 120])
moments = st.datetimes(datetime(1971, 1, 1), datetime(2105, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)
fields = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | short_text | moments,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short_text, inner, max_size=3),
    max_leaves=3,
)
properties = st.builds(
    spec.Basic.Properties,
    content_type=st.none() | short_text,
    content_encoding=st.none() | short_text,
    headers=st.none() | st.dictionaries(short_text, fields, max_size=4),
    delivery_mode=st.none() | st.sampled_from([1, 2]),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | short_text,
    reply_to=st.none() | short_text,
    expiration=st.none() | short_text,
    message_id=st.none() | short_text,
    timestamp=st.none() | moments,
    message_type=st.none() | short_text,
    user_id=st.none() | short_text,
    app_id=st.none() | short_text,
)
deliveries = st.tuples(
    st.builds(
        spec.Basic.Deliver,
        consumer_tag=st.just("hammerwork.orders"),
        delivery_tag=st.integers(1, 2**63 - 1),
        redelivered=st.booleans(),
        exchange=st.from_regex(r"[a-zA-Z0-9-_.:]{0,12}", fullmatch=True),
        routing_key=short_text,
    ),
    properties,
    st.binary(max_size=150),
)
other_frames = st.sampled_from(
    [
        SIGN_OF_LIFE,
        frame.marshal(spec.Basic.ConsumeOk("tag"), CHANNEL),
        frame.marshal(spec.Basic.CancelOk("tag"), CHANNEL),
        frame.marshal(spec.Connection.Blocked("memory"), 0),
        frame.marshal(spec.Channel.OpenOk(), 2),
    ]
)


def frames_of(method: spec.Basic.Deliver, said: spec.Basic.Properties, body: bytes) -> list[bytes]:
    parts = [body[at : at + LARGEST] for at in range(0, len(body), LARGEST)]
    return [
        frame.marshal(method, CHANNEL),
        frame.marshal(ContentHeader(0, len(body), said), CHANNEL),
        *(frame.marshal(ContentBody(part), CHANNEL) for part in parts),
    ]


def read_by_the_client(frames: Sequence[bytes]) -> Delivered:
    """What pamqp makes of the frames of one message."""
    method, header, *bodies = [frame.unmarshal(one)[2] for one in frames]
    assert isinstance(method, spec.Basic.Deliver)
    assert isinstance(header, ContentHeader)
    said = header.properties
    fields = {name: getattr(said, "message_type" if name == "type" else name) for name in Properties._fields}
    return Delivered(
        method.delivery_tag or 0,
        bool(method.redelivered),
        method.exchange or "",
        method.routing_key or "",
        Properties(**{name: value for name, value in fields.items() if value not in (None, "")}),
        b"".join(body.value for body in bodies if isinstance(body, ContentBody)),
    )


def without_empty(message: Delivered) -> Delivered:
    """pamqp has one empty text for nothing said and for nothing in it."""
    said = {name: value for name, value in message.properties._asdict().items() if value != ""}
    return message._replace(properties=Properties(**said))


def feed(parser: DeliveryParser, chunks: Iterator[bytes]) -> tuple[list[Delivered], bytes]:
    messages, others = [], []
    for chunk in chunks:
        arrived, left = parser.feed(chunk)
        messages += arrived
        others.append(left)
    return messages, b"".join(others)


@settings(deadline=None)
@given(st.data(), st.lists(deliveries, max_size=5))
def test_any_messages_in_any_pieces_are_read_as_the_client_reads_them(
    data: st.DataObject, sent: list[tuple[spec.Basic.Deliver, spec.Basic.Properties, bytes]]
) -> None:
    stream, expected, others = [], [], []
    for one in sent:
        frames = frames_of(*one)
        expected.append(read_by_the_client(frames))
        between = data.draw(st.lists(other_frames, max_size=2))
        others += between
        stream += between + frames[:1]
        for part in frames[1:]:
            if data.draw(st.booleans()):  # a heartbeat may come in the middle of a message
                others.append(SIGN_OF_LIFE)
                stream.append(SIGN_OF_LIFE)
            stream.append(part)
    whole = b"".join(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    pieces = (whole[start:end] for start, end in pairwise([0, *cuts, len(whole)]))
    messages, left = feed(DeliveryParser(), pieces)
    assert [without_empty(message) for message in messages] == expected
    assert left == b"".join(others)


@given(deliveries, st.data())
def test_a_message_that_breaks_off_is_none(
    sent: tuple[spec.Basic.Deliver, spec.Basic.Properties, bytes], data: st.DataObject
) -> None:
    whole = b"".join(frames_of(*sent))
    end = data.draw(st.integers(0, len(whole) - 1))
    assert DeliveryParser().feed(whole[:end]) == ([], b"")


@settings(max_examples=300)
@given(st.binary(max_size=80))
def test_properties_of_any_bytes_are_read_or_garbled(payload: bytes) -> None:
    try:
        said = read_properties(payload, 0)
    except Garbled:
        return
    assert all(len((text or "").encode()) <= 255 for text in (said.message_id, said.content_type))


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_a_header_table_of_any_bytes_is_what_the_client_reads_or_marked(content: bytes) -> None:
    table = len(content).to_bytes(4, "big") + content
    headers = read_properties(b"\x20\x00" + table, 0).headers
    try:
        _, expected = pamqp_decode.field_table(table)
    except Exception:
        expected = {"hammerwork-unreadable": content}
    assert repr(headers) == repr(expected)  # NaN is not equal to itself


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_are_frames_or_garbled(chunks: list[bytes]) -> None:
    try:
        messages, _ = feed(DeliveryParser(), iter(chunks))
    except Garbled:
        return
    assert messages == []


def raw(kind: int, payload: bytes, channel: int = CHANNEL, end: bytes = b"\xce") -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end


DELIVER = struct.pack(">HH", 60, 60) + b"\x03tag" + struct.pack(">QB", 7, 0) + b"\x00\x01k"
HEADER = struct.pack(">HHQH", 60, 0, 3, 0)
GARBLED = {
    "another protocol": b"HTTP/1.1 400 Bad Request",
    "the protocol's header": b"AMQP\x00\x00\x09\x01",
    "no such frame": raw(4, b"x"),
    "a frame without its end": raw(1, DELIVER, end=b"\x00"),
    "a frame without end": struct.pack(">BHI", 3, CHANNEL, 2**31) + b"x",
    "a message on no channel": raw(1, DELIVER, channel=0),
    "a message within a message": raw(1, DELIVER) + raw(1, DELIVER),
    "a message on another channel within one": raw(1, DELIVER) + raw(1, DELIVER, channel=2),
    "a close within a message": raw(1, DELIVER) + raw(2, HEADER) + frame.marshal(spec.Channel.CloseOk(), 1),
    "a body before its header": raw(1, DELIVER) + raw(3, b"abc"),
    "two headers": raw(1, DELIVER) + raw(2, HEADER) + raw(2, HEADER),
    "a header too short": raw(1, DELIVER) + raw(2, HEADER[:9]),
    "a header without flags": raw(1, DELIVER) + raw(2, HEADER[:12]),
    "a header of another class": raw(1, DELIVER) + raw(2, b"\x00\x32" + HEADER[2:]),
    "a weight": raw(1, DELIVER) + raw(2, HEADER[:3] + b"\x01" + HEADER[4:]),
    "a body too long": raw(1, DELIVER) + raw(2, HEADER) + raw(3, b"ab") + raw(3, b"cd"),
    "a property missing": raw(1, DELIVER) + raw(2, HEADER[:12] + b"\x00\x80"),
    "a property too short": raw(1, DELIVER) + raw(2, HEADER[:12] + b"\x00\x80\x05abc"),
    "a table too short": raw(1, DELIVER) + raw(2, HEADER[:12] + b"\x20\x00\x00\x00\x00\x09abc"),
    "bytes after the properties": raw(1, DELIVER) + raw(2, HEADER + b"x"),
    "a delivery too short": raw(1, DELIVER[:-1]) + raw(2, HEADER) + raw(3, b"abc"),
    "a delivery too long": raw(1, DELIVER + b"x") + raw(2, HEADER) + raw(3, b"abc"),
    "a delivery without a tag": raw(1, DELIVER[:9]) + raw(2, HEADER) + raw(3, b"abc"),
}


@pytest.mark.parametrize("stream", GARBLED.values(), ids=GARBLED.keys())
def test_what_the_protocol_does_not_allow_is_garbled(stream: bytes) -> None:
    parser = DeliveryParser()
    parser.longest_frame = 131_072
    with pytest.raises(Garbled):
        parser.feed(stream)


async def test_a_garbled_stream_ends_the_clients_reading_with_the_reason() -> None:
    messages: list[Delivered] = []
    reader = FrameReader(messages.extend, loop=asyncio.get_running_loop())
    reader.feed_data(raw(4, b"x"))
    reader.feed_data(raw(1, DELIVER) + raw(2, HEADER) + raw(3, b"abc"))
    with pytest.raises(ConnectionAbortedError, match="no frame of kind 4"):
        await reader.readexactly(1)
    assert messages == []


async def test_a_stream_of_deliveries_alone_is_a_sign_of_life_now_and_then() -> None:
    messages: list[Delivered] = []
    reader = FrameReader(messages.extend, loop=asyncio.get_running_loop())
    for _ in range(3):
        reader.feed_data(raw(1, DELIVER) + raw(2, HEADER) + raw(3, b"abc"))
    reader.feed_eof()
    seen = await reader.read()
    assert seen == SIGN_OF_LIFE
    assert isinstance(frame.unmarshal(seen)[2], Heartbeat)
    assert [(m.delivery_tag, m.routing_key, m.body) for m in messages] == [(7, "k", b"abc")] * 3
