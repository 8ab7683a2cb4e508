"""WebhookSink against endpoints that stall, flood, talk nonsense, hide behind bad certificates or go away."""

from __future__ import annotations

import asyncio
import gzip
import resource
import ssl
import time
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hammerwork.core.errors import Unavailable
from hammerwork.core.event import DeliveryAttempt
from hammerwork.core.job import Done, Retry, Snooze
from hammerwork.sinks.webhook import WebhookSink
from hammerwork.sinks.webhook.sink import EXCERPT

from .delivering import EVENT_ID, attempt, connections_of, deliver, sink
from .hostile_server import Authority, Exchange, HostileServer, full_backlog

SHORT = {"timeout": 0.5, "connect_timeout": 0.3}
MEGABYTE = 1024 * 1024


def held(opened: WebhookSink) -> int:
    """How many connections of the sink are in use."""
    return len(connections_of(opened)._acquired)


# --- time ----------------------------------------------------------------------------------------


async def drip(exchange: Exchange, piece: bytes) -> None:
    while True:
        await exchange.send(piece)
        await asyncio.sleep(0.05)


async def silent(exchange: Exchange) -> None:
    await exchange.stall()


async def half_a_status_line(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 2")
    await exchange.stall()


async def half_the_headers(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    await exchange.stall()


async def headers_drop_by_drop(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nX: ")
    await drip(exchange, b"x")


async def endless_continue(exchange: Exchange) -> None:
    while True:
        await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "behaviour", [silent, half_a_status_line, half_the_headers, headers_drop_by_drop, endless_continue]
)
async def test_an_answer_that_does_not_come_costs_the_deadline_and_no_more(
    server: HostileServer, behaviour: Callable[[Exchange], Any]
) -> None:
    started = time.monotonic()
    report = await deliver(server.does("/", behaviour), SHORT)
    assert 0.4 < time.monotonic() - started < 1.5
    assert (report.outcome, report.error, report.status) == (Retry("timeout"), "timeout", None)


@pytest.mark.parametrize("start", [b"", b"half"])
async def test_a_body_that_stalls_costs_the_deadline_but_the_status_counts(
    server: HostileServer, start: bytes
) -> None:
    async def body(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + start)
        await exchange.stall()

    started = time.monotonic()
    report = await deliver(server.does("/", body), SHORT)
    assert 0.4 < time.monotonic() - started < 1.5
    assert (report.outcome, report.error, report.response) == (Done(), None, start.decode())


async def test_a_body_that_drips_costs_the_deadline(server: HostileServer) -> None:
    async def body(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 500 Bad\r\nContent-Length: 1000\r\n\r\n")
        await drip(exchange, b"x")

    started = time.monotonic()
    report = await deliver(server.does("/", body), SHORT)
    assert 0.4 < time.monotonic() - started < 1.5
    assert report.error == "http_500"


async def test_an_endpoint_that_reads_nothing_costs_the_deadline() -> None:
    async with full_backlog() as port:
        started = time.monotonic()
        report = await deliver(f"http://127.0.0.1:{port}/", SHORT)
    assert 0.2 < time.monotonic() - started < 1
    assert report.error == "connect_timeout"


async def test_a_tls_handshake_that_stalls_costs_the_connect_timeout(server: HostileServer) -> None:
    started = time.monotonic()
    report = await deliver(server.url().replace("http:", "https:"), SHORT)
    assert 0.2 < time.monotonic() - started < 1
    assert report.error == "connect_timeout"


async def test_a_stalled_endpoint_delays_no_other(server: HostileServer) -> None:
    async with HostileServer().running() as healthy:
        slow = sink(server.does("/", silent), SHORT)
        async with slow as stalled, sink(healthy.url()) as other, asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(stalled.deliver(attempt()))
            await server.has(connections=20)
            reports = [await other.deliver(attempt()) for _ in range(20)]
    assert {report.error for report in reports} == {None}
    assert max(report.duration for report in reports) < 0.4


# --- floods --------------------------------------------------------------------------------------


async def test_of_a_huge_body_only_the_start_is_read(server: HostileServer) -> None:
    seen: list[Exchange] = []

    async def flood(exchange: Exchange) -> None:
        seen.append(exchange)
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            await exchange.send(b"x" * 65_536)

    tracemalloc.start()
    report = await deliver(server.does("/", flood))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.outcome == Done()
    assert report.response == "x" * EXCERPT
    assert report.duration < 1
    # What the two kernels' socket buffers hold was sent, and nobody read it.
    assert seen[0].sent < 16 * MEGABYTE
    assert peak < 2 * MEGABYTE


async def test_a_gzip_bomb_is_not_decompressed(server: HostileServer) -> None:
    bomb = gzip.compress(bytes(50 * MEGABYTE))
    headers = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    server.answers("/", headers + bomb)
    tracemalloc.start()
    report = await deliver(server.url(), {"response_bytes": 1024 * 1024})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (report.outcome, report.response) == (Done(), "")
    assert peak < 2 * MEGABYTE


async def endless_headers(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    number = 0
    while True:
        number += 1
        await exchange.send(b"X-%d: y\r\n" % number)


async def one_endless_header(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        await exchange.send(b"y" * 65_536)


async def an_endless_status_line(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 ")
    while True:
        await exchange.send(b"y" * 65_536)


async def many_headers_at_once(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await exchange.send(b"X: y\r\n" * 10_000)


@pytest.mark.parametrize(
    "behaviour", [endless_headers, many_headers_at_once, one_endless_header, an_endless_status_line]
)
async def test_endless_headers_are_cut_off(
    server: HostileServer, behaviour: Callable[[Exchange], Any]
) -> None:
    tracemalloc.start()
    report = await deliver(server.does("/", behaviour))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (report.outcome, report.error) == (Retry("bad_response"), "bad_response")
    assert report.duration < 1
    assert peak < 4 * MEGABYTE


GARBAGE = [
    *(b"", b"\0" * 100, b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n"),
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
]


@pytest.mark.parametrize("raw", GARBAGE)
async def test_what_is_no_http_is_a_failure_and_does_not_show(server: HostileServer, raw: bytes) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(raw)
        raise ConnectionError

    report = await deliver(server.does("/", answer))
    assert report.error in {"bad_response", "disconnected"}
    assert report.outcome == Retry(report.error or "")
    assert report.response == ""


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\nhello\r\n",
        b"5\r\nhelloooo\r\n",
        b"f" * 100 + b"\r\n",
        b"-5\r\nhello\r\n",
        b"5;" + b"x" * 99_999,
    ],
)
async def test_garbage_for_a_body_neither_hurts_nor_spoils_the_next_try(
    server: HostileServer, chunks: bytes
) -> None:
    async with sink(server.answers("/", CHUNKED + chunks), SHORT) as opened:
        for number in (1, 2):
            report = await opened.deliver(attempt(number))
            # The status counts if it was read before the garbage; both came in one piece here.
            assert report.outcome in (Done(), Retry("bad_response"))
    assert server.connections == 2, "a connection in an unknown state is not used again"


async def test_a_response_that_is_no_text_is_kept_as_far_as_it_can_be(server: HostileServer) -> None:
    server.answers("/", b"HTTP/1.1 500 Bad\r\nContent-Length: 4\r\n\r\n\xffa\xe2\x9c")
    assert (await deliver(server.url())).response == "�a�"


async def test_an_answer_before_the_request_was_read_is_an_answer() -> None:
    finished = asyncio.Event()
    connections = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await finished.wait()
        writer.transport.abort()

    big = DeliveryAttempt(event_id=EVENT_ID, cloud_event={"data": "x" * 20 * MEGABYTE}, attempt=1)
    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener, sink(f"http://127.0.0.1:{port}/") as opened:
        for _ in range(2):
            report = await opened.deliver(big)
            assert report.error == "http_413"
            assert report.duration < 1
            await asyncio.sleep(0)
            assert held(opened) == 0, "what nobody reads is not sent on"
        finished.set()
    assert connections == 2, "half a request is not followed by another one"


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_a_good_certificate_of_a_given_authority_is_taken(authority: Authority) -> None:
    async with HostileServer().running(authority.context()) as secure:
        report = await deliver(secure.url(), {"tls": {"ca_file": authority.ca_file}})
    assert report.error is None


BAD_CERTIFICATES = [
    ({"ends": timedelta(days=-1)}, "tls_expired"),
    ({"starts": timedelta(days=1)}, "tls_not_yet_valid"),
    ({"names": ["other.example"]}, "tls_hostname"),
    ({"names": ["127.0.0.2"]}, "tls_hostname"),
    ({"names": []}, "tls_hostname"),
    ({"self_signed": True}, "tls_untrusted"),
]


@pytest.mark.parametrize(("certificate", "error"), BAD_CERTIFICATES)
async def test_a_bad_certificate_is_refused_with_its_class(
    authority: Authority, certificate: dict[str, Any], error: str
) -> None:
    async with HostileServer().running(authority.context(**certificate)) as secure:
        report = await deliver(secure.url(), {"tls": {"ca_file": authority.ca_file}})
    assert (report.outcome, report.error) == (Retry(error), error)
    assert secure.requests == []


async def test_a_name_is_checked_against_the_certificate(authority: Authority) -> None:
    async with HostileServer().running(authority.context(names=["other.example"])) as secure:
        report = await deliver(secure.url("/", "localhost"), {"tls": {"ca_file": authority.ca_file}})
    assert report.error == "tls_hostname"


async def test_an_unknown_authority_is_not_trusted(authority: Authority) -> None:
    async with HostileServer().running(authority.context()) as secure:
        assert (await deliver(secure.url())).error == "tls_untrusted"
    assert secure.requests == []


async def test_old_tls_is_not_spoken(authority: Authority) -> None:
    context = authority.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with HostileServer().running(context) as secure:
        report = await deliver(secure.url(), {"tls": {"ca_file": authority.ca_file}})
    assert report.error in {"tls_failed", "disconnected"}
    assert secure.requests == []


async def test_a_handshake_that_breaks_off_is_a_failure() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.transport.abort()

    listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with listener:
        report = await deliver(f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}/")
    assert report.error in {"tls_failed", "disconnected"}


async def test_a_client_certificate_is_shown_where_one_is_asked_for(authority: Authority) -> None:
    context = authority.context()
    context.load_verify_locations(authority.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    certificate, key = authority.issue()
    async with HostileServer().running(context) as secure:
        without = await deliver(secure.url(), {"tls": {"ca_file": authority.ca_file}})
        tls = {"ca_file": authority.ca_file, "cert_file": certificate, "key_file": key}
        shown = await deliver(secure.url(), {"tls": tls})
    assert without.error in {"tls_failed", "disconnected"}
    assert shown.error is None
    assert len(secure.requests) == 1


# --- the network and ourselves -------------------------------------------------------------------


async def test_a_closed_port_is_a_refused_connection(server: HostileServer) -> None:
    async with HostileServer().running() as gone:
        url = gone.url()
    report = await deliver(url)
    assert (report.outcome, report.error) == (Retry("connection_refused"), "connection_refused")


async def test_a_name_that_does_not_exist_is_a_class_of_its_own() -> None:
    report = await deliver("https://nothing.invalid/")
    assert report.error in {"dns_not_found", "dns_failed", "connect_timeout"}
    assert isinstance(report.outcome, Retry)


async def test_running_out_of_descriptors_burns_no_attempt(server: HostileServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with sink(server.url()) as opened:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            report = await opened.deliver(attempt())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert report.error == "local_resources"
    assert isinstance(report.outcome, Snooze)


async def test_opening_and_closing_twice_is_harmless(server: HostileServer) -> None:
    async with sink(server.url()) as opened:
        await opened.open()
        assert (await opened.deliver(attempt())).outcome == Done()
        await opened.close()
        with pytest.raises(Unavailable):
            await opened.deliver(attempt())


async def test_a_cancelled_delivery_lets_go_of_its_connection(server: HostileServer) -> None:
    async with sink(server.does("/", silent)) as opened:
        task = asyncio.create_task(opened.deliver(attempt()), name="delivery")
        await server.has(requests=1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert held(opened) == 0
