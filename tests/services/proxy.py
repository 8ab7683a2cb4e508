"""FaultProxy: a TCP proxy between a client and a server that cuts, stalls and refuses on demand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from enum import Enum
from types import TracebackType
from typing import Literal, Self

Direction = Literal["to_server", "to_client"]
CHUNK = 64 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class _Link:
    """One client's connection and ours to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server

    def reset(self) -> None:
        for writer in (self.client, self.server):
            _reset(writer)


class _Verdict(Enum):
    PASS = "pass"
    CUT_NOW = "cut_now"
    CUT_AFTER_REPLY = "cut_after_reply"


class FaultProxy:
    """Listens on 127.0.0.1 (`port`) and forwards to a server until told otherwise.

    Used as `async with FaultProxy(host, port) as proxy:`. With `tls` clients speak TLS to it; the server
    is spoken to in the clear. Faults hold for connections that exist and
    for those to come, until `heal`.
    """

    def __init__(self, target_host: str, target_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._target = (target_host, target_port)
        self._tls = tls
        self._links: set[_Link] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._pattern: bytes | None = None
        self._direction: Direction = "to_server"
        self._tripped = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0
        """How many connections were accepted so far."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    def cut(self) -> None:
        """Reset (TCP RST) every connection, on both sides. New ones are served."""
        for link in tuple(self._links):
            link.reset()

    def refuse(self) -> None:
        """Reset every connection, and every new one at once."""
        self._refusing = True
        self.cut()

    def blackhole(self) -> None:
        """Let nothing through in either direction, and tell nobody."""
        self._flowing.clear()

    def heal(self) -> None:
        """End every fault. What a black hole held back flows on."""
        self._refusing = False
        self._pattern = None
        self._flowing.set()

    def cut_after(self, pattern: bytes, direction: Direction = "to_server") -> asyncio.Event:
        """Once, when `pattern` passes: cut that connection so that its client does not learn the answer.

        `to_server`: the bytes go through, the server's next answer is awaited and thrown away, then the
        client is reset: a COMMIT has happened and the client cannot know. `to_client`: the client is
        reset instead of being given the bytes. The event that is returned says that it happened.
        """
        self._pattern, self._direction = pattern, direction
        self._tripped = asyncio.Event()
        return self._tripped

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        self.connections += 1
        try:
            await self._forward(reader, writer)
        except OSError:
            pass  # either side is gone; the other is reset below
        finally:
            _reset(writer)
            self._handlers.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            return
        await self._flowing.wait()
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        link = _Link(writer, server_writer)
        self._links.add(link)
        muted = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    self._pump(reader, server_writer, "to_server", link, muted), name="to server"
                )
                group.create_task(
                    self._pump(server_reader, writer, "to_client", link, muted), name="to client"
                )
        except* OSError:
            pass
        finally:
            self._links.discard(link)
            link.reset()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        direction: Direction,
        link: _Link,
        muted: asyncio.Event,
    ) -> None:
        """Copy one direction; `muted` says that the server's next answer must not reach the client."""
        tail = b""
        while data := await source.read(CHUNK):
            await self._flowing.wait()
            if direction == "to_client" and muted.is_set():
                self._trip(link)
                return
            verdict = self._judge(tail + data, direction)
            if verdict is _Verdict.CUT_NOW:
                self._trip(link)
                return
            if verdict is _Verdict.CUT_AFTER_REPLY:
                muted.set()
            tail = data[-256:]
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            with contextlib.suppress(OSError):
                sink.write_eof()

    def _judge(self, seen: bytes, direction: Direction) -> _Verdict:
        if self._pattern is None or direction != self._direction or self._pattern not in seen:
            return _Verdict.PASS
        self._pattern = None
        return _Verdict.CUT_AFTER_REPLY if direction == "to_server" else _Verdict.CUT_NOW

    def _trip(self, link: _Link) -> None:
        link.reset()
        self._tripped.set()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN, dropping what was not sent yet."""
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.transport.is_closing():
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()
