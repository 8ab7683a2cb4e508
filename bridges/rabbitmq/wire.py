"""The socket under the client: it takes deliveries off the stream, and can be cut."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, SupportsIndex

from aiormq.connection import TransportFactory
from yarl import URL

from .content import Garbled, read_text
from .deliveries import FRAME_END, FRAME_START, HEARTBEAT, Delivered, DeliveryParser

CLOSE_METHOD = struct.pack(">HH", 10, 50)
SIGN_OF_LIFE = FRAME_START.pack(HEARTBEAT, 0, 0) + bytes([FRAME_END])
SIGN_EVERY = 1.0
"""Seconds; the client gives a broker up after three heartbeats (a second each, at least) without a frame."""


class Wire(TransportFactory):
    """Opens the socket for the client, and hands over what is delivered on it.

    `receive` is called with the messages that arrived together, in their order; it must not raise.
    """

    def __init__(self, *, server_name: str | None) -> None:
        self.receive: Callable[[Sequence[Delivered]], None] = _unexpected
        self._server_name = server_name
        self._writer: asyncio.StreamWriter | None = None
        self._reader: FrameReader | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        tls = await kwargs["ssl_context_provider"].get_context() if url.scheme == "amqps" else None
        reader = FrameReader(lambda messages: self.receive(messages), loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.create_connection(
            lambda: protocol,
            url.host or "",
            url.port or 0,
            ssl=tls,
            server_hostname=self._server_name if tls else None,
        )
        self._reader = reader
        self._writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        return reader, self._writer

    @property
    def heard_at(self) -> float:
        assert self._reader is not None
        return self._reader.latest_at

    @property
    def refusal(self) -> str | None:
        return refusal_in(self._reader.latest) if self._reader is not None else None

    def limit_frames(self, longest: int) -> None:
        """Frames may have `longest` bytes (0: any number), as was agreed with the broker."""
        assert self._reader is not None
        self._reader.parser.longest_frame = longest

    def cut(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


class FrameReader(asyncio.StreamReader):
    """What the client reads: the frames that arrive, but for those of deliveries.

    A stream that cannot be read ends the client's reading with an error that says why.
    """

    def __init__(
        self, receive: Callable[[Sequence[Delivered]], None], *, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(loop=loop)
        self.parser = DeliveryParser()
        self.latest = b""
        """The bytes that arrived last: where the broker says why it closes."""
        self.latest_at = loop.time()
        self._receive = receive
        self._clock = loop.time
        self._signed_at = 0.0

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        if self.exception() is not None:
            return
        self.latest, self.latest_at = received, now = bytes(data), self._clock()
        try:
            messages, frames = self.parser.feed(received)
        except Garbled as error:
            self.set_exception(ConnectionAbortedError(f"the broker's frames cannot be read: {error}"))
            return
        if messages:
            self._receive(messages)
        if not frames and now - self._signed_at > SIGN_EVERY:
            # A broker sends no heartbeats while it delivers, and the client knows of no delivery.
            frames = SIGN_OF_LIFE
        if frames:
            self._signed_at = now
            super().feed_data(frames)


def refusal_in(received: bytes) -> str | None:
    """The text of a Connection.Close (`NOT_ALLOWED - vhost x not found`) at the end of `received`."""
    start = received.rfind(CLOSE_METHOD)
    if start < 0:
        return None
    return read_text(received, start + len(CLOSE_METHOD) + 2)[0]


def _unexpected(messages: Sequence[Delivered]) -> None:
    """Nobody consumes yet, so nothing is delivered."""
