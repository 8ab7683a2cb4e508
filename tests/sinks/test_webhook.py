"""WebhookSink: what it sends, what it makes of each status, and what may be set."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook

from hammerwork.clients.signature import new_key_pair, new_secret, verify_standard
from hammerwork.core.errors import Misconfigured
from hammerwork.core.event import DeliveryAttempt
from hammerwork.core.job import Dead, Done, Retry
from hammerwork.sinks.webhook import WebhookOptions, WebhookSink
from hammerwork.sinks.webhook.verdict import wanted_delay

from .delivering import EVENT, EVENT_ID, attempt, deliver, sink
from .hostile_server import OK, Exchange, HostileServer

MEGABYTE = 1024 * 1024


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


async def test_the_stored_text_is_sent_as_it_is_and_signed(server: HostileServer) -> None:
    secret, text = new_secret(), '{"id": "1", "data": 0.10, "source": "/wörk", "huge": 123456789012345678901}'
    given = DeliveryAttempt(event_id="1", cloud_event=json.loads(text), attempt=1, text=text)
    async with sink(server.url(), {"secrets": [secret]}) as opened:
        await opened.deliver(given)
    (request,) = server.requests
    assert request.body == text.encode()
    assert Webhook(secret).verify(request.body, request.headers) == json.loads(text)


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
    assert f"set HAMMERWORK_SINKS__{opened.name.upper()}__SECRETS=whsec_" in text
