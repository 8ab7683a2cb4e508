"""Endpoint: one URL that is POSTed to over kept connections, each answer bounded in time and size."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage
from yarl import URL

from .deadlines import Deadlines
from .egress import Egress

KEEPALIVE = 4.0
"""Seconds that an idle connection is kept: less than the 5 s after which common servers close theirs, so
that no event is sent into a connection that is being closed."""
MOST_HEADERS, LONGEST_HEADER = 100, 8190
"""How many response headers are taken, and of how many bytes each (the status line too)."""
SWITCHING_PROTOCOLS = 101


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one answer may cost: `timeout` from the first DNS question to its end, `connect_timeout` for DNS,
    TCP and TLS together, `body` bytes of its body."""

    timeout: timedelta
    connect_timeout: timedelta
    body: int


class Answer(NamedTuple):
    """What came back; `body` is its start, as far as it came in time."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Endpoint:
    """Works beneath aiohttp's session (decision 012): aiohttp's connector dials, keeps and checks connections
    and its parser reads; there are no redirects, cookies, proxies or decompression to switch off.

    Made inside a running event loop; raises what aiohttp raises, ClientError and OSError.
    """

    def __init__(
        self,
        url: URL,
        headers: Mapping[str, str],
        limits: Limits,
        *,
        egress: Egress,
        tls: ssl.SSLContext | Literal[True],
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._limits = limits
        self._deadlines = Deadlines(limits.timeout.total_seconds())
        self._connect_timeout = aiohttp.ClientTimeout(
            connect=limits.connect_timeout.total_seconds(),
            ceil_threshold=math.inf,  # else a deadline is rounded up to whole seconds
        )
        self._loop = asyncio.get_running_loop()
        self.connections = aiohttp.TCPConnector(
            socket_factory=egress.socket_factory,
            resolver=resolver,
            ssl=tls,
            keepalive_timeout=KEEPALIVE,
            limit=0,  # the framework bounds how many deliveries run
        )
        # For the connector a request is an address; what is sent is written by us.
        self._address = aiohttp.ClientRequest("POST", url, loop=self._loop)
        self._start_of_head = "\r\n".join(
            [f"POST {url.raw_path_qs} HTTP/1.1", f"Host: {url.host_port_subcomponent}", *_lines(headers), ""]
        ).encode()

    async def close(self) -> None:
        self._deadlines.close()
        await self.connections.close()

    async def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send these bytes, and the answer. Once the status is read, the body's faults are no failure."""
        head = "\r\n".join([*_lines(headers), f"Content-Length: {len(body)}", "", ""]).encode()
        with self._deadlines.begin() as deadline:
            connection = await self._connect()
            try:
                message, content = await self._exchange(connection, self._start_of_head + head + body)
            except BaseException:
                connection.close()
                raise
        try:
            start = await self._start_of(content, deadline.at)
        finally:
            _let_go(connection)
        return Answer(message.code, message.headers, start)

    async def _connect(self) -> Connection:
        try:
            return await self.connections.connect(self._address, [], self._connect_timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError("no connection in time") from error

    async def _exchange(
        self, connection: Connection, request: bytes
    ) -> tuple[RawResponseMessage, aiohttp.StreamReader]:
        protocol = connection.protocol
        if protocol is None or protocol.transport is None or protocol.transport.is_closing():
            raise aiohttp.ClientConnectionResetError("the connection was closed before it was used")
        protocol.set_response_params(
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=max(self._limits.body, 1024),
            max_line_size=LONGEST_HEADER,
            max_field_size=LONGEST_HEADER,
            max_headers=MOST_HEADERS,
        )
        protocol.transport.write(request)
        try:
            message, content = await protocol.read()
            while 100 <= message.code < 200 and message.code != SWITCHING_PROTOCOLS:
                message, content = await protocol.read()
        except HttpProcessingError as error:
            raise aiohttp.ClientPayloadError("what came back is no HTTP") from error
        return message, content

    async def _start_of(self, content: aiohttp.StreamReader, deadline: float) -> bytes:
        most, start = self._limits.body, b""
        if content.is_eof():
            return content.read_nowait(most)
        with suppress(aiohttp.ClientError, OSError):
            async with asyncio.timeout_at(deadline):
                while piece := await content.read(most - len(start)):
                    start += piece
        return start


def _lines(headers: Mapping[str, str]) -> list[str]:
    """Header lines. Raises ValueError for what would end a line early, and so begin another header."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    if not all(map(str.isprintable, lines)):
        raise ValueError("a header holds a control character")
    return lines


def _let_go(connection: Connection) -> None:
    """Keep the connection, unless something is still on its way in either direction: the connector itself
    closes one whose answer was not read to its end."""
    transport = connection.transport
    if transport is None or transport.get_write_buffer_size() > 0:
        connection.close()
    else:
        connection.release()
