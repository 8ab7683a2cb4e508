"""WebhookSink: events POSTed to an HTTP endpoint, signed as Standard Webhooks."""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self, assert_never
from urllib.parse import quote

import aiohttp
from aiohttp.abc import AbstractResolver
from pydantic import AfterValidator, ByteSize, Field, SecretStr, model_validator

from ...clients.options import Options, TlsOptions
from ...clients.signature import Keyring, VerifyingKey, parse_key
from ...core.errors import Misconfigured, Unavailable
from ...core.event import DeliveryAttempt, DeliveryReport, SinkCapabilities
from ...core.job import Json
from ...core.message import Guarantee
from ...core.postgres.store import encode
from .egress import Egress
from .endpoint import Answer, Endpoint, Limits
from .verdict import GONE, judge, judge_failure

Body = Literal["cloudevents", "cloudevents-binary", "standard"]

EXCERPT = 4096
"""Bytes of a response that the delivery log keeps."""

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[!-~](?:[ -~\t]*[!-~])?")
OWN_HEADERS = frozenset(
    {"host", "connection", "keep-alive", "te", "trailer", "upgrade", "expect", "cookie", "date"}
    | {"content-length", "content-type", "content-encoding", "transfer-encoding", "accept-encoding"}
)
OWN_PREFIXES = ("webhook-", "ce-", "proxy-")

_SAFE_IN_CE_HEADERS = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def _usable_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        if HEADER_NAME.fullmatch(name) is None:
            raise ValueError(f"{name[:80]!r} is no header name")
        if name.lower() in OWN_HEADERS or name.lower().startswith(OWN_PREFIXES):
            raise ValueError(f"the header {name} is set by the sink or the connection")
        if HEADER_VALUE.fullmatch(value.get_secret_value()) is None:
            raise ValueError(f"the value of {name} is empty or has characters that a header cannot carry")
    return headers


class WebhookOptions(Options):
    """Where events are sent, how they are signed, and what the endpoint may cost us.

    Concurrency, the retry schedule and when the sink is given up are settings of every sink.
    """

    url: SecretStr
    """The paths and queries of webhooks often authorise the sender, so the whole is a secret."""
    secrets: tuple[SecretStr, ...] = ()
    """`whsec_…` (HMAC) and `whsk_…` (Ed25519) keys, the newest first. Each of them signs, so that one can be
    exchanged without a gap."""
    secrets_file: Path | None = None
    """One key a line; read when the sink is made."""
    body: Body = "cloudevents"
    """`cloudevents`: the event as one JSON object. `cloudevents-binary`: its attributes as `ce-` headers,
    its data as the body. `standard`: the body `{type, timestamp, data}` of Standard Webhooks."""
    headers: Annotated[dict[str, SecretStr], AfterValidator(_usable_headers)] = Field(default_factory=dict)
    timeout: timedelta = Field(timedelta(seconds=15), gt=timedelta(0), le=timedelta(minutes=5))
    """From the first DNS question to the end of the answer."""
    connect_timeout: timedelta = Field(timedelta(seconds=5), gt=timedelta(0))
    """For DNS, TCP and TLS together."""
    max_retry_after: timedelta = Field(timedelta(hours=24), ge=timedelta(0))
    response_bytes: ByteSize = Field(ByteSize(16 * 1024), ge=0, le=1024 * 1024)
    """What is read of a response's body; of a longer one the connection is closed."""
    allow_http: bool = False
    allow_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """CIDR blocks that may be reached although they are private, local or reserved."""
    tls: TlsOptions = TlsOptions()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.secrets and self.secrets_file is not None:
            raise ValueError("give secrets or secrets_file, and not both")
        if self.tls.key_file is not None and self.tls.cert_file is None:
            raise ValueError("tls.key_file needs tls.cert_file")
        return self


class WebhookSink:
    """Implements `core.event.Sink` for one URL: at least once, with a stable `webhook-id`.

    A 2xx status means taken, whatever becomes of the body after it. Redirects are never followed, addresses
    are checked at every dial, and of an answer only a bounded part is read, within `timeout` as a whole.
    Raises Misconfigured for a URL, key or TLS file that cannot be used, and MissingExtra for Ed25519.
    """

    Options = WebhookOptions
    capabilities = SinkCapabilities(refuses=True)

    def __init__(
        self, name: str, options: WebhookOptions, *, resolver: AbstractResolver | None = None
    ) -> None:
        self.name = name
        self._options = options
        self._resolver = resolver
        self._egress = Egress(name, allow=options.allow_networks, allow_http=options.allow_http)
        self._url = self._egress.check_url(options.url.get_secret_value())
        self._keyring = _keyring(options)
        self._tls = _tls_context(options.tls)
        self._endpoint: Endpoint | None = None

    async def open(self) -> None:
        """Ready the endpoint; nothing is connected before the first delivery."""
        if self._endpoint is not None:
            return
        options = self._options
        self._endpoint = Endpoint(
            self._url,
            _standing_headers(options),
            Limits(
                timeout=options.timeout,
                connect_timeout=options.connect_timeout,
                body=options.response_bytes,
            ),
            egress=self._egress,
            tls=self._tls,
            resolver=self._resolver,
        )

    async def close(self) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.close()

    async def guarantee(self) -> Guarantee:
        return Guarantee(
            "at-least-once",
            "an event is sent again, with the same webhook-id, until a 2xx answer; the receiver drops the"
            " repetitions by that id",
            tuple(self._warnings()),
        )

    def _warnings(self) -> Iterator[str]:
        options = self._options
        if self._keyring is None:
            variable = f"HAMMERWORK_SINKS__{self.name.upper()}__SECRETS"
            yield f"nothing is signed: anybody can send events in our name; set {variable}=whsec_…"
        if self._url.scheme == "http":
            yield "the url is http://: anybody on the way can read and change events"
        if options.allow_networks:
            yield f"addresses of {', '.join(map(str, options.allow_networks))} may be reached"
        if options.body == "cloudevents-binary":
            yield "the signature covers webhook-id and the body, not the ce- headers"

    async def deliver(self, attempt: DeliveryAttempt) -> DeliveryReport:
        """One POST. Never raises for what the endpoint or the network does."""
        if self._endpoint is None:
            raise Unavailable(f"the sink {self.name} is not open")
        headers, body = _content(attempt, self._options.body)
        headers.update(self._identity(attempt.event_id, body))
        started = time.monotonic()
        try:
            answer = await self._endpoint.post(headers, body)
        except (aiohttp.ClientError, OSError) as failure:
            failed, error = judge_failure(failure)
            return DeliveryReport(outcome=failed, error=error, duration=time.monotonic() - started)
        outcome, reason = judge(
            answer.status, answer.headers.get("Retry-After"), self._options.max_retry_after
        )
        return DeliveryReport(
            outcome=outcome,
            status=answer.status,
            error=reason,
            duration=time.monotonic() - started,
            response=_excerpt(answer),
            disable=GONE if reason == GONE else None,
        )

    def _identity(self, event_id: str, body: bytes) -> Mapping[str, str]:
        now = datetime.now(UTC)
        if self._keyring is None:
            return {"webhook-id": event_id, "webhook-timestamp": str(int(now.timestamp()))}
        return self._keyring.headers(event_id, now, body)


# --- what is sent --------------------------------------------------------------------------------


def _content(attempt: DeliveryAttempt, form: Body) -> tuple[dict[str, str], bytes]:
    """The headers that say what is sent, and its bytes."""
    event = attempt.cloud_event
    match form:
        case "cloudevents":
            body = _bytes(event) if attempt.text is None else attempt.text.encode()
            return {"Content-Type": "application/cloudevents+json; charset=utf-8"}, body
        case "cloudevents-binary":
            attributes = {k: v for k, v in event.items() if k not in ("data", "datacontenttype")}
            headers = {f"ce-{name}": _ce_value(value) for name, value in attributes.items()}
            kind = str(event.get("datacontenttype", "application/json"))
            return {"Content-Type": kind, **headers}, _bytes(event.get("data"))
        case "standard":
            standard = {"type": event["type"], "timestamp": event["time"], "data": event.get("data")}
            return {"Content-Type": "application/json"}, _bytes(standard)
        case _:
            assert_never(form)


def _bytes(value: Json) -> bytes:
    return encode(value, "the event").encode()


def _ce_value(value: Json) -> str:
    """An attribute as a header (CloudEvents HTTP binding 1.0.2, §3.1.3.2): what is not visible ASCII, and
    the quote and percent signs, as percent-encoded UTF-8."""
    text = json.dumps(value) if isinstance(value, bool) else str(value)
    return quote(text, safe=_SAFE_IN_CE_HEADERS)


def _excerpt(answer: Answer) -> str:
    if not answer.body or "Content-Encoding" in answer.headers:
        return ""
    return answer.body[:EXCERPT].decode("utf-8", "replace")


# --- what was set --------------------------------------------------------------------------------


def _standing_headers(options: WebhookOptions) -> dict[str, str]:
    """The headers of every request."""
    given = {name: value.get_secret_value() for name, value in options.headers.items()}
    if "user-agent" not in map(str.lower, given):
        given["User-Agent"] = "hammerwork"
    return {**given, "Accept-Encoding": "identity"}


def _keyring(options: WebhookOptions) -> Keyring | None:
    """The keys that sign; None where none is set. Blocks for reading the file."""
    texts = [secret.get_secret_value() for secret in options.secrets]
    if options.secrets_file is not None:
        texts = _lines(options.secrets_file)
    keys = tuple(parse_key(text) for text in texts)
    if any(isinstance(key, VerifyingKey) for key in keys):
        raise Misconfigured("secrets holds a whpk_ key, which cannot sign", hint="give whsec_ or whsk_ keys")
    return Keyring(keys) if keys else None


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Misconfigured(f"secrets_file {path} cannot be read: {reason}") from error
    if not lines:
        raise Misconfigured(f"secrets_file {path} is empty", hint="write one key a line")
    return lines


def _tls_context(tls: TlsOptions) -> ssl.SSLContext | Literal[True]:
    """True: aiohttp's own, which is the same and made already. To load the system's authorities once more
    takes 30 ms, and a megabyte, a sink."""
    if tls == TlsOptions():
        return True
    context = tls.context()
    context.set_alpn_protocols(["http/1.1"])
    return context
