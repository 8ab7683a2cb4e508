"""WebhookSink against endpoints that stall, lie, flood, redirect, hide behind bad certificates or go away."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import ssl
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook

from hammerwork.core.errors import Misconfigured, Unavailable
from hammerwork.core.event import DeliveryAttempt
from hammerwork.core.job import Dead, Done, Retry, Snooze
from hammerwork.core.signature import new_key_pair, new_secret, verify_standard
from hammerwork.sinks.verdict import wanted_delay
from hammerwork.sinks.webhook import EXCERPT, WebhookOptions, WebhookSink

from .delivering import EVENT, EVENT_ID, attempt, deliver, sink
from .hostile_server import OK, Authority, Exchange, HostileServer, full_backlog

SHORT = {"timeout": 0.5, "connect_timeout": 0.3}
MEGABYTE = 1024 * 1024


def held(opened: WebhookSink) -> int:
    """How many connections of the sink are in use."""
    connector = opened._session.connector if opened._session else None
    assert isinstance(connector, aiohttp.TCPConnector)
    return len(connector._acquired)


def status(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {line}", "Content-Length: 0", *headers, "", ""]).encode()


# --- what is sent --------------------------------------------------------------------------------


async def test_an_event_is_posted_as_a_signed_cloud_event(server: HostileServer) -> None:
    secret = new_secret()
    report = await deliver(server.url("/hooks?x=1"), {"secrets": [secret]})
    assert (report.outcome, report.status, report.error, report.response) == (Done(), 200, None, "ok")
    assert 0 < report.duration < 2
    (request,) = server.requests
    assert request.path == "/hooks?x=1"
    assert request.headers["content-type"].startswith("application/cloudevents+json")
    assert request.headers["webhook-id"] == EVENT_ID
    assert Webhook(secret).verify(request.body, request.headers) == EVENT.cloud_event("/hammerwork")


async def test_the_standard_body_is_type_timestamp_and_data(server: HostileServer) -> None:
    await deliver(server.url(), {"body": "standard"})
    event = EVENT.cloud_event("/")
    (request,) = server.requests
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == {
        "type": "dev.hammerwork.job.completed",
        "timestamp": "2026-11-23T12:00:00Z",
        "data": event["data"],
    }


async def test_the_binary_mode_puts_attributes_into_headers(server: HostileServer) -> None:
    async with sink(server.url(), {"body": "cloudevents-binary"}) as opened:
        await opened.deliver(attempt(source='/wörk "100%"\r\nx: y'))
    (request,) = server.requests
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == EVENT.cloud_event("/")["data"]
    found = {name: value for name, value in request.headers.items() if name.startswith("ce-")}
    assert found == {
        "ce-specversion": "1.0",
        "ce-id": EVENT_ID,
        "ce-source": "/w%C3%B6rk%20%22100%25%22%0D%0Ax:%20y",
        "ce-type": "dev.hammerwork.job.completed",
        "ce-time": "2026-11-23T12:00:00Z",
        "ce-sequence": "0000000003",
        "ce-subject": str(EVENT.job_id),
        "ce-partitionkey": str(EVENT.job_id),
    }


async def test_every_key_signs_so_that_one_can_be_exchanged(server: HostileServer, tmp_path: Path) -> None:
    new, old = new_secret(), new_secret()
    private, public = new_key_pair()
    file = tmp_path / "keys"
    file.write_text(f"{new}\n{old}\n{private}\n")
    await deliver(server.url(), {"secrets_file": file})
    (request,) = server.requests
    for key in (new, old, public):
        verify_standard(request.body, request.headers, [key])


async def test_a_lost_reply_is_tried_again_with_the_same_id_and_a_new_time(server: HostileServer) -> None:
    secret = new_secret()
    forget = asyncio.Event()

    async def lose(exchange: Exchange) -> None:
        if forget.is_set():
            await exchange.send(OK)
        else:
            forget.set()
            raise ConnectionError

    async with sink(server.does("/", lose), {"secrets": [secret]}) as opened:
        first = await opened.deliver(attempt())
        assert (first.outcome, first.error, first.status) == (Retry("disconnected"), "disconnected", None)
        await asyncio.sleep(1.1 - time.time() % 1)  # the clock's next second, which is what is signed
        assert (await opened.deliver(attempt(2))).outcome == Done()
    one, two = server.requests
    assert one.headers["webhook-id"] == two.headers["webhook-id"] == EVENT_ID
    assert one.headers["webhook-timestamp"] < two.headers["webhook-timestamp"]
    assert one.headers["webhook-signature"] != two.headers["webhook-signature"]
    assert one.body == two.body
    verify_standard(two.body, two.headers, [secret])


async def test_given_headers_are_sent_and_cookies_are_not_kept(server: HostileServer) -> None:
    server.answers("/", status("204 No Content", "Set-Cookie: a=b; Path=/"))
    settings = {"headers": {"Authorization": "Bearer hunter2", "User-Agent": "us"}}
    async with sink(server.url("/", "localhost"), settings) as opened:
        for number in (1, 2):
            assert (await opened.deliver(attempt(number))).status == 204
    for request in server.requests:
        assert request.headers["authorization"] == "Bearer hunter2"
        assert request.headers["user-agent"] == "us"
        assert request.headers["accept-encoding"] == "identity"
        assert "cookie" not in request.headers
    assert server.connections == 1, "a connection whose answer ended is used again"


async def test_an_event_of_megabytes_is_sent_whole(server: HostileServer) -> None:
    big = DeliveryAttempt(event_id=EVENT_ID, cloud_event={"data": "x" * 3 * MEGABYTE}, attempt=1)
    async with sink(server.url()) as opened:
        assert (await opened.deliver(big)).outcome == Done()
    assert len(server.requests[0].body) > 3 * MEGABYTE


# --- statuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ["400 Bad", "401 No", "404 No", "422 No", "500 Bad", "502 Bad", "503 Busy", "599 X"]
)
async def test_a_refusal_is_tried_again_by_the_schedule(server: HostileServer, line: str) -> None:
    report = await deliver(server.answers("/", status(line)))
    code = int(line[:3])
    assert (report.status, report.error) == (code, f"http_{code}")
    assert report.outcome == Retry(f"http_{code}", delay=None)
    assert report.disable is None


@pytest.mark.parametrize("line", ["429 Slow", "502 Bad", "503 Busy", "504 Late"])
async def test_a_busy_endpoint_names_its_own_delay(server: HostileServer, line: str) -> None:
    report = await deliver(server.answers("/", status(line, "Retry-After: 120")))
    assert report.outcome == Retry(f"http_{line[:3]}", delay=timedelta(seconds=120))


@pytest.mark.parametrize("line", ["500 Bad", "404 No", "301 Moved"])
async def test_other_answers_do_not_set_the_delay(server: HostileServer, line: str) -> None:
    report = await deliver(server.answers("/", status(line, "Retry-After: 120", "Location: /")))
    assert isinstance(report.outcome, Retry)
    assert report.outcome.delay is None


NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
ASKED = [
    *(("60", MINUTE), ("  60 ", MINUTE), ("86400", DAY), ("86401", DAY), ("9" * 5000, DAY)),
    *(("0", None), ("-1", None), ("-" + "9" * 5000, None), ("", None), ("soon", None), ("1.5", None)),
    *(("1e9", None), ("٣", None), ("0x10", None), ("Mon, 99 Nov 2026 12:00:00 GMT", None)),
    (format_datetime(NOW + MINUTE, usegmt=True), MINUTE),
    ("Mon, 23 Nov 2026 12:01:00 -0000", MINUTE),
    ("Monday, 23-Nov-26 12:01:00 GMT", MINUTE),
    (format_datetime(NOW - MINUTE, usegmt=True), None),
    ("Fri, 31 Dec 9999 23:59:59 GMT", DAY),
]


@pytest.mark.parametrize(("header", "delay"), ASKED)
def test_retry_after_is_read_in_every_form_and_held_in_bounds(header: str, delay: timedelta | None) -> None:
    assert wanted_delay(header, DAY, now=NOW) == delay


async def test_an_absurd_retry_after_is_cut_to_the_limit(server: HostileServer) -> None:
    server.answers("/", status("503 Busy", f"Retry-After: {'9' * 5000}"))
    report = await deliver(server.url(), {"max_retry_after": 60})
    assert report.outcome == Retry("http_503", delay=MINUTE)


async def test_gone_disables_the_sink(server: HostileServer) -> None:
    report = await deliver(server.answers("/", status("410 Gone")))
    assert (report.outcome, report.error, report.disable) == (Dead("gone"), "gone", "gone")


@pytest.mark.parametrize("code", [300, 301, 302, 303, 304, 305, 307, 308])
async def test_a_redirect_is_a_failure_and_never_followed(server: HostileServer, code: int) -> None:
    async with HostileServer().running() as target:
        headers = f"Location: {target.url('/secret')}", f"Refresh: 0; url={target.url('/secret')}"
        report = await deliver(server.answers("/", status(f"{code} Elsewhere", *headers)))
        assert (report.status, report.error) == (code, "redirect_refused")
        assert report.outcome == Retry("redirect_refused")
        assert target.connections == 0
    assert len(server.requests) == 1


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
    assert max(report.duration for report in reports) < 0.2


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


async def test_an_answer_before_the_request_was_read_is_an_answer(server: HostileServer) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await finished.wait()
        writer.transport.abort()

    finished = asyncio.Event()
    big = DeliveryAttempt(event_id=EVENT_ID, cloud_event={"data": "x" * 20 * MEGABYTE}, attempt=1)
    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener, sink(f"http://127.0.0.1:{port}/") as opened:
        report = await opened.deliver(big)
        await asyncio.sleep(0)
        assert held(opened) == 0, "what nobody reads is not sent on"
        finished.set()
    assert report.error == "http_413"
    assert report.duration < 1


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


# --- what may be set -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        *({"X": "a\r\nB: c"}, {"X": "a\nb"}, {"X": "a\0b"}, {"X": ""}, {"X": " a"}, {"X": "ü"}),
        *({"X\r\nY": "a"}, {"X Y": "a"}, {"": "a"}, {"X:": "a"}, {"Ü": "a"}),
        *({"Host": "a"}, {"content-LENGTH": "1"}, {"Transfer-Encoding": "chunked"}, {"Connection": "close"}),
        *({"Webhook-Id": "a"}, {"webhook-signature": "a"}, {"ce-id": "a"}, {"Content-Type": "a"}),
        *({"Proxy-Authorization": "a"}, {"Expect": "100-continue"}, {"Cookie": "a=b"}),
    ],
)
def test_a_header_that_is_not_the_users_to_set_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        WebhookOptions.model_validate({"url": "https://h.example/", "headers": headers})


async def test_no_secret_shows_in_options_sink_or_warnings(tmp_path: Path) -> None:
    secret = new_secret()
    settings = {
        "url": "https://h.example/hunter2",
        "secrets": [secret],
        "headers": {"Authorization": "hunter2"},
    }
    options = WebhookOptions.model_validate(settings)
    made = WebhookSink("hooks", options)
    shown = f"{options} {options!r} {made!r} {vars(made)['_keyring']!r} {await made.guarantee()}"
    assert secret[6:] not in shown
    assert "hunter2" not in shown
    assert (await made.guarantee()).warnings == ()


@pytest.mark.parametrize(
    "settings",
    [
        *({"secrets": ["hunter2"]}, {"secrets": ["whsec_hunter2"]}, {"secrets": [new_key_pair()[1]]}),
        *({"secrets_file": "/nothing/here"}, {"tls": {"ca_file": "/nothing/here"}}),
        *({"url": "http://h.example/hunter2"}, {"url": "https://u:hunter2@h.example/"}),
    ],
)
def test_what_cannot_be_used_is_refused_when_the_sink_is_made(settings: dict[str, Any]) -> None:
    options = WebhookOptions.model_validate({"url": "https://h.example/", **settings})
    with pytest.raises(Misconfigured) as refused:
        WebhookSink("hooks", options)
    assert "hunter2" not in f"{refused.value} {refused.value.hint}"


@pytest.mark.parametrize(
    "settings",
    [
        *({"secrets": [new_secret()], "secrets_file": "/x"}, {"tls": {"key_file": "/x"}}, {"timeout": 0}),
        *({"allow_networks": ["10.0.0.1/8"]}, {"body": "xml"}, {"unknown": 1}, {"response_bytes": -1}),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WebhookOptions.model_validate({"url": "https://h.example/", **settings})


async def test_the_guarantee_warns_of_what_is_open() -> None:
    async with sink("http://h.example/", {"body": "cloudevents-binary"}) as opened:
        guarantee = await opened.guarantee()
    assert guarantee.level == "at-least-once"
    assert "webhook-id" in guarantee.because
    text = "\n".join(guarantee.warnings)
    assert all(part in text for part in ("nothing is signed", "http://", "127.0.0.0/8", "ce- headers"))
