"""Connections to an endpoint: used again, never in doubt, and nothing but our headers in a request."""

from __future__ import annotations

import asyncio

import pytest

from hammerwork.core.event import DeliveryAttempt
from hammerwork.core.job import Done, Retry

from .delivering import EVENT, EVENT_ID, attempt, connections_of, sink
from .hostile_server import OK, Exchange, HostileServer

MEGABYTE = 1024 * 1024


async def test_as_many_connections_as_deliveries_at_once_serve_all_of_them(server: HostileServer) -> None:
    async with sink(server.url()) as opened:

        async def deliver_some() -> None:
            for number in range(1, 11):
                assert (await opened.deliver(attempt(number))).outcome == Done()

        await asyncio.gather(*(deliver_some() for _ in range(50)))
    assert len(server.requests) == 500
    assert server.connections <= 50


@pytest.mark.parametrize(
    "kind", ["a/b\r\nX-Evil: yes", "a/b\nX-Evil: yes", "a/b\0", "a/b\r\n\r\nGET / HTTP/1.1"]
)
async def test_no_event_can_add_a_header_or_a_request(server: HostileServer, kind: str) -> None:
    event = {**EVENT.cloud_event("/hammerwork"), "datacontenttype": kind}
    async with sink(server.url(), {"body": "cloudevents-binary"}) as opened:
        with pytest.raises(ValueError, match="control character"):
            await opened.deliver(DeliveryAttempt(event_id=EVENT_ID, cloud_event=event, attempt=1))
        with pytest.raises(ValueError, match="control character"):
            await opened.deliver(
                DeliveryAttempt(event_id="a\r\nX: b", cloud_event=EVENT.cloud_event("/"), attempt=1)
            )
    assert server.connections == 0


async def test_an_answer_before_the_request_is_read_ends_the_connection(server: HostileServer) -> None:
    """What is left of the request would be the start of the next one."""
    early, opened_connections = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened_connections.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(early)
        await writer.drain()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    big = DeliveryAttempt(event_id=EVENT_ID, cloud_event={"data": "x" * 20 * MEGABYTE}, attempt=1)
    async with listener, sink(f"http://127.0.0.1:{port}/") as opened:
        for _ in range(2):
            assert (await opened.deliver(big)).outcome == Retry("http_413")
            assert not connections_of(opened)._conns
        for writer in opened_connections:
            writer.transport.abort()
    assert len(opened_connections) == 2


async def test_a_second_answer_to_one_request_ends_the_connection(server: HostileServer) -> None:
    """Else it would be taken for the answer to the next request."""
    server.answers("/", b"HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n" + OK)
    async with sink(server.url()) as opened:
        for _ in range(2):
            assert (await opened.deliver(attempt())).outcome == Retry("http_500")
    assert server.connections == 2


async def test_an_upgrade_is_no_answer_and_ends_the_connection(server: HostileServer) -> None:
    server.answers("/", b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    async with sink(server.url()) as opened:
        for _ in range(2):
            assert (await opened.deliver(attempt())).outcome == Retry("http_101")
    assert server.connections == 2


async def test_interim_answers_are_passed_over(server: HostileServer) -> None:
    async def hint(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        await exchange.send(b"HTTP/1.1 102 Processing\r\n\r\n" + OK)

    async with sink(server.does("/", hint)) as opened:
        for _ in range(2):
            report = await opened.deliver(attempt())
            assert (report.status, report.response) == (200, "ok")
    assert server.connections == 1
