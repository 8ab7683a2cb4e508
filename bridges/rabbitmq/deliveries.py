"""Messages straight off the wire: the frames of deliveries are read here, all others are the client's."""

from __future__ import annotations

import struct
from typing import NamedTuple

from .content import Garbled, Properties, read_properties, read_text

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_KINDS = (METHOD, HEADER, BODY, HEARTBEAT)
FRAME_START = struct.Struct(">BHI")
FRAME_END = 0xCE
SHORTEST_FRAME = FRAME_START.size + 1

BASIC = 60
DELIVER = struct.pack(">HH", BASIC, 60)
TAG_AND_FLAG = struct.Struct(">QB")
CONTENT_START = struct.Struct(">HHQ")


class Delivered(NamedTuple):
    """One message as a broker delivered it."""

    delivery_tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    properties: Properties
    body: bytes


class DeliveryParser:
    """Takes the messages out of a stream of AMQP 0-9-1 frames and leaves the other frames as they are.

    A client's own reader makes three objects and a task of every message, which costs more than to store
    it. Only one channel consumes, so at most one message is open at a time; other channels' frames may
    come between. Frames longer than `longest_frame` bytes (0: any) are refused, like everything that the
    protocol does not allow, with Garbled: after that the stream means nothing any more.
    """

    def __init__(self) -> None:
        self.longest_frame = 0
        self._held: list[bytes] = []
        self._missing = SHORTEST_FRAME
        self._channel = 0
        """Of the message whose frames are coming; 0 where there is none."""
        self._method = b""
        self._properties: Properties | None = None
        self._body: list[bytes] = []
        self._body_missing = 0

    def feed(self, received: bytes) -> tuple[list[Delivered], bytes]:
        """The messages that are complete with these bytes, and the frames that are not a message's."""
        self._held.append(received)
        self._missing -= len(received)
        if self._missing > 0:
            return [], b""
        data = b"".join(self._held)
        messages: list[Delivered] = []
        others: list[bytes] = []
        at = self._read_frames(data, messages, others)
        self._held = [data[at:]] if at < len(data) else []
        return messages, b"".join(others)

    def _read_frames(self, data: bytes, messages: list[Delivered], others: list[bytes]) -> int:
        """Read all frames that are there whole; where the first that is not begins."""
        at, length, unpack = 0, len(data), FRAME_START.unpack_from
        while (rest := length - at) >= SHORTEST_FRAME:
            kind, channel, size = unpack(data, at)
            start = at + FRAME_START.size
            end = start + size
            if end >= length:
                self._expect(kind, size)
                self._missing = end + 1 - length
                return at
            if data[end] != FRAME_END:
                raise Garbled("a frame does not end where it says")
            if channel == self._channel != 0:
                if (message := self._content(kind, data[start:end])) is not None:
                    messages.append(message)
            elif kind == METHOD and data.startswith(DELIVER, start):
                self._open(channel, data[start + len(DELIVER) : end])
            else:
                self._expect(kind, size)
                others.append(data[at : end + 1])
            at = end + 1
        self._missing = SHORTEST_FRAME - rest
        return at

    def _expect(self, kind: int, size: int) -> None:
        if kind not in FRAME_KINDS:
            raise Garbled(f"there is no frame of kind {kind}")
        if 0 < self.longest_frame < size + SHORTEST_FRAME:
            raise Garbled(f"a frame is to have {size} bytes, {self.longest_frame} were agreed on")

    def _open(self, channel: int, method: bytes) -> None:
        if self._channel or not channel:
            raise Garbled("a message begins within another, or on no channel")
        self._channel, self._method = channel, method

    def _content(self, kind: int, payload: bytes) -> Delivered | None:
        """The next part of the open message; the message when it was the last."""
        if self._properties is None:
            if kind != HEADER or len(payload) < CONTENT_START.size:
                raise Garbled("a message has no content header")
            of, weight, self._body_missing = CONTENT_START.unpack_from(payload)
            if of != BASIC or weight:
                raise Garbled("a content header is not a message's")
            self._properties = read_properties(payload, CONTENT_START.size)
        else:
            if kind != BODY:
                raise Garbled("something else comes within a message's body")
            self._body.append(payload)
            self._body_missing -= len(payload)
        if self._body_missing > 0:
            return None
        if self._body_missing < 0:
            raise Garbled("a message's body is longer than its header says")
        return self._completed(self._properties)

    def _completed(self, properties: Properties) -> Delivered:
        method, body = self._method, self._body
        self._channel, self._properties, self._body = 0, None, []
        try:
            start = 1 + method[0]
            tag, redelivered = TAG_AND_FLAG.unpack_from(method, start)
            exchange, at = read_text(method, start + TAG_AND_FLAG.size)
            routing_key, at = read_text(method, at)
        except (IndexError, struct.error) as error:
            raise Garbled("a delivery breaks off") from error
        if at != len(method):
            raise Garbled("a delivery is not as long as its parts")
        whole = body[0] if len(body) == 1 else b"".join(body)
        return Delivered(tag, redelivered & 1 == 1, exchange, routing_key, properties, whole)
