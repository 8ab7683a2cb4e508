"""HttpBridge: messages that are POSTed to the gateway, each answered after it is stored for good."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NoReturn, Self, assert_never

import structlog
from aiohttp import web
from pydantic import ByteSize, Field, SecretStr, model_validator

from ...clients.options import Options
from ...clients.signature import BadSignature, verify_github, verify_standard
from ...core.errors import Disconnected, Misconfigured
from ...core.ingest.decode import Decoder
from ...core.message import (
    AT_LEAST_ONCE,
    EXACTLY_ONCE,
    BridgeCapabilities,
    Delivery,
    Guarantee,
    Message,
    Receipt,
    Want,
)
from .answer import Answer, Refused, batch_response, come_again, problem, single_response
from .content import Content, Identity, Incoming, Unreadable

log = structlog.get_logger(__name__)


SHORTEST_TOKEN = 16


class SignatureOptions(Options):
    """How senders sign: `standard` is Standard Webhooks, `github` is X-Hub-Signature-256."""

    scheme: Literal["standard", "github"]
    secrets: tuple[Annotated[SecretStr, Field(min_length=1)], ...] = ()
    """whsec_ or whpk_ texts for `standard`, any text for `github`. Any of them may have signed, so that a
    secret can be exchanged without a gap."""
    secret_file: Path | None = None
    """One secret a line; read when the bridge opens."""
    tolerance: timedelta = Field(default=timedelta(minutes=5), gt=timedelta(0))
    """How far the sender's clock may be off (`standard` only)."""

    @model_validator(mode="after")
    def _has_a_secret(self) -> Self:
        if bool(self.secrets) == (self.secret_file is not None):
            raise ValueError("give secrets or secret_file, and not both")
        return self


class HttpOptions(Options):
    """Where messages are POSTed, who may, and how many may wait."""

    path: str | None = Field(default=None, pattern=r"^(/[A-Za-z0-9._~-]+)+$")
    """/in/<bridge name> where it is not given; a batch may also be sent to <path>/batch."""
    token: SecretStr | None = Field(default=None, min_length=SHORTEST_TOKEN)
    token_file: Path | None = None
    """Read when the bridge opens."""
    signature: SignatureOptions | None = None
    require_identity: bool = False
    """Refuse messages that carry no identity, so that none can be stored twice."""
    max_body: ByteSize = Field(default=ByteSize(1024 * 1024), gt=0)
    max_batch: int = Field(default=1000, ge=1)
    max_pending: int = Field(default=5000, ge=1)
    """Messages that wait for their COMMIT; above it the answer is 503."""
    max_pending_size: ByteSize = Field(default=ByteSize(64 * 1024 * 1024), gt=0)
    wait: timedelta = Field(default=timedelta(seconds=30), gt=timedelta(0))
    """How long a request waits, for its body and then for COMMIT."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise ValueError("give token or token_file, not both")
        if self.max_batch > self.max_pending or self.max_body > self.max_pending_size:
            raise ValueError("max_pending must hold one batch, and max_pending_size one body")
        return self


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an open bridge checks requests against; without either, it takes any."""

    token: bytes = field(default=b"", repr=False)
    verify: Callable[[bytes, Mapping[str, str]], object] | None = field(default=None, repr=False)


class HttpBridge:
    """Implements `core.message.Bridge` for requests: `routes()` takes them in, `pull` hands them on.

    A request is answered 2xx only after `settle`. One that is not stored in time, is released, or finds
    too many waiting before it is answered 503, and the sender repeats it. Raises Misconfigured from
    `open` for a file of secrets that cannot be used.
    """

    Options = HttpOptions
    capabilities = BridgeCapabilities(
        stable_ids=True, carries=frozenset({"id", "headers", "content_type", "correlation_id"})
    )

    def __init__(self, name: str, options: HttpOptions) -> None:
        self.name = name
        self.path = options.path or f"/in/{name}"
        self._options = options
        self._content = Content(
            unpacker=Decoder(format="bytes", max_bytes=options.max_body),
            max_batch=options.max_batch,
            identities=_identities(options),
        )
        self._credentials = Credentials()
        self._opened = False
        self._arrived = asyncio.Event()
        self._buffer: deque[tuple[Message, Answer]] = deque()
        self._waiting: set[Answer] = set()
        self._waiting_size = 0

    @property
    def authenticated(self) -> bool:
        """Whether senders must prove who they are; otherwise the gateway mounts it on loopback only."""
        options = self._options
        return options.token is not None or options.token_file is not None or options.signature is not None

    @property
    def waiting(self) -> int:
        """Messages whose senders wait for their COMMIT at this moment."""
        return len(self._waiting)

    def routes(self) -> list[web.RouteDef]:
        """To be mounted on a server with `auto_decompress=False`: signatures are over the bytes as they
        were sent, and unpacking them is bounded here."""
        return [
            web.route("*", self.path, self._handle),
            web.route("*", f"{self.path}/batch", self._handle),
        ]

    # --- the seam ---

    async def open(self) -> None:
        self._credentials = await asyncio.to_thread(_credentials, self._options)
        self._opened = True
        log.info("http.opened", bridge=self.name, path=self.path, authenticated=self.authenticated)

    async def pull(self, want: Want) -> Sequence[Delivery]:
        if not self._opened:
            raise Disconnected("the bridge is not open")
        if not self._buffer:
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(want.wait.total_seconds()):
                    await self._arrived.wait()
        if self._buffer and len(self._buffer) < want.count:
            await asyncio.sleep(want.linger.total_seconds())
        taken: list[Delivery] = []
        size = 0
        while self._buffer and len(taken) < want.count:
            message, answer = self._buffer[0]
            if taken and size + len(message.body) > want.size:
                break
            self._buffer.popleft()
            if not answer.done():  # else its sender was told to come again
                taken.append(Delivery(message, answer))
                size += len(message.body)
        return taken

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        for receipt in receipts:
            _give(receipt.delivery.handle, receipt)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            _give(delivery.handle, None)

    async def rest(self) -> None:
        """Who waits to be stored is told to come again; who comes now waits, as far as there is room."""
        while self._buffer:
            _give(self._buffer.popleft()[1], None)

    async def lag(self) -> int | None:
        return len(self._buffer)

    def tap(self, most: int, kept: Mapping[str, int | None]) -> NoReturn:
        raise Misconfigured(
            f"messages are sent to the HTTP bridge {self.name!r}; none wait anywhere to be looked at",
            hint=f"`hammerwork bridge dry-run {self.name} FILE` shows what becomes of one that you have",
        )

    async def close(self) -> None:
        self._opened = False
        self._buffer.clear()
        for answer in self._waiting:
            _give(answer, None)
        self._arrived.set()

    async def guarantee(self) -> Guarantee:
        await asyncio.to_thread(_credentials, self._options)
        return _guarantee(self._options, self.authenticated)

    # --- one request ---

    async def _handle(self, request: web.Request) -> web.Response:
        try:
            return await self._receive(request)
        except Unreadable as error:
            refused = Refused(error.status, error.reason, error.detail)
        except Refused as error:
            refused = error
        log.info("http.refused", bridge=self.name, status=refused.status, reason=refused.reason)
        return problem(refused.status, refused.reason, refused.detail, headers=refused.headers)

    async def _receive(self, request: web.Request) -> web.Response:
        if request.method != "POST":
            raise Refused(405, "method_not_allowed", f"{request.method} is not for this path", Allow="POST")
        if not self._opened:
            raise come_again("busy", "the bridge is not open")
        self._check_token(request)
        self._check_room(1, request.content_length or 0)
        incoming = await self._incoming(request)
        self._check_signature(incoming)
        message = self._content.single(incoming)
        if message is not None:
            (answer,) = self._admit([message])
            await self._wait_for([answer])
            return single_response(message, answer)
        messages = self._content.batch(incoming)
        good = [message for message in messages if isinstance(message, Message)]
        answers = self._admit(good)
        await self._wait_for(answers)
        return batch_response(messages, answers)

    async def _incoming(self, request: web.Request) -> Incoming:
        try:
            async with asyncio.timeout(self._options.wait.total_seconds()):
                body = await self._body(request)
        except TimeoutError as error:
            raise Refused(408, "too_slow", f"the body did not arrive in {self._options.wait}") from error
        except (ConnectionError, web.RequestPayloadError) as error:
            raise Refused(400, "body_cut_off", "the body did not arrive whole") from error
        headers: dict[str, str] = {}
        for name, value in request.headers.items():
            known = headers.get(name.lower())
            headers[name.lower()] = value if known is None else f"{known}, {value}"
        batch = request.path == f"{self.path}/batch" or request.query.get("batch") in ("1", "true")
        return Incoming(
            path=request.path, headers=headers, body=body, batch=batch, received=datetime.now(UTC)
        )

    async def _body(self, request: web.Request) -> bytes:
        most = self._options.max_body
        body = bytearray()
        if (request.content_length or 0) <= most:
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > most:
                    break
            else:
                return bytes(body)
        raise Refused(413, "too_large", f"a body of at most {most} bytes is taken", Connection="close")

    def _check_token(self, request: web.Request) -> None:
        token = self._credentials.token
        if not token:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise Refused(401, "no_credentials", "a bearer token is needed", WWW_Authenticate="Bearer")
        if not hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token):
            raise Refused(403, "bad_token", "the token is not this bridge's")

    def _check_signature(self, incoming: Incoming) -> None:
        if self._credentials.verify is None:
            return
        try:
            self._credentials.verify(incoming.body, incoming.headers)
        except BadSignature as error:
            if error.reason == "missing_header":
                raise Refused(401, "no_signature", str(error)) from error
            raise Refused(403, "bad_signature", str(error)) from error

    def _check_room(self, count: int, size: int) -> None:
        options = self._options
        if len(self._waiting) + count > options.max_pending:
            raise come_again("busy", "too many messages wait to be stored")
        if self._waiting_size + size > options.max_pending_size:
            raise come_again("busy", "too many bytes wait to be stored")

    def _admit(self, messages: Sequence[Message]) -> list[Answer]:
        """Put the messages of one request into the buffer: all of them or none."""
        if self._options.require_identity and any(message.id is None for message in messages):
            raise Refused(400, "no_identity", "this bridge takes messages with an identity only")
        if not self._opened:
            raise come_again("busy", "the bridge was closed")
        self._check_room(len(messages), sum(len(message.body) for message in messages))
        answers: list[Answer] = []
        for message in messages:
            answer: Answer = asyncio.get_running_loop().create_future()
            self._waiting.add(answer)
            self._waiting_size += len(message.body)
            answer.add_done_callback(partial(self._forget, len(message.body)))
            self._buffer.append((message, answer))
            answers.append(answer)
        self._arrived.set()
        return answers

    async def _wait_for(self, answers: Sequence[Answer]) -> None:
        """Until all are answered or the time is up; what is not answered then counts as given up."""
        if not answers:
            return
        try:
            await asyncio.wait(answers, timeout=self._options.wait.total_seconds())
        finally:
            for answer in answers:
                answer.cancel()

    def _forget(self, size: int, answer: Answer) -> None:
        self._waiting.discard(answer)
        self._waiting_size -= size


def _give(answer: Answer, receipt: Receipt | None) -> None:
    if not answer.done():
        answer.set_result(receipt)


def _identities(options: HttpOptions) -> tuple[Identity, ...]:
    if options.signature is not None and options.signature.scheme == "standard":
        # Only webhook-id is signed: any other header can be changed when a request is replayed.
        return ("webhook-id",)
    return ("idempotency-key", "cloud-event", "webhook-id", "x-github-delivery")


def _credentials(options: HttpOptions) -> Credentials:
    """Read from their files where they are; raises Misconfigured for what cannot be used."""
    token = options.token.get_secret_value() if options.token is not None else ""
    if options.token_file is not None:
        token = _lines(options.token_file)[0]
        if len(token) < SHORTEST_TOKEN:
            raise Misconfigured(
                f"the token in {options.token_file} is shorter than {SHORTEST_TOKEN} characters"
            )
    return Credentials(token.encode(), None if options.signature is None else _verifier(options.signature))


def _verifier(options: SignatureOptions) -> Callable[[bytes, Mapping[str, str]], object]:
    secrets = tuple(secret.get_secret_value() for secret in options.secrets)
    if options.secret_file is not None:
        secrets = _lines(options.secret_file)
    verify: Callable[[bytes, Mapping[str, str]], object]
    match options.scheme:
        case "standard":
            verify = partial(verify_standard, secrets=secrets, tolerance=options.tolerance)
            probe = {
                "webhook-id": "probe",
                "webhook-timestamp": f"{time.time():.0f}",
                "webhook-signature": "v1,AAAA",
            }
        case "github":
            verify = partial(verify_github, secrets=secrets)
            probe = {"x-hub-signature-256": f"sha256={'0' * 64}"}
        case _:
            assert_never(options.scheme)
    # Secrets that cannot be used are found now, not by the first request.
    with suppress(BadSignature):
        verify(b"", probe)
    return verify


def _lines(path: Path) -> tuple[str, ...]:
    try:
        lines = tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"{path} cannot be read: {error}", hint="make it readable to the gateway"
        ) from error
    if not lines:
        raise Misconfigured(f"{path} is empty", hint="write the secret on its first line")
    return lines


def _guarantee(options: HttpOptions, authenticated: bool) -> Guarantee:
    warnings = (
        [] if authenticated else ["anybody who reaches the path may send; it is mounted on loopback only"]
    )
    signed = options.signature is not None and options.signature.scheme == "standard"
    answer = (
        "a 2xx answer follows the COMMIT, and a request that is repeated with its identity is stored once"
    )
    if options.require_identity or signed:
        return Guarantee(EXACTLY_ONCE, answer, tuple(warnings))
    warnings.append("require_identity = true refuses requests without an identity")
    return Guarantee(
        AT_LEAST_ONCE,
        f"{answer} (exactly-once in effect for senders of an Idempotency-Key, a CloudEvents id, a webhook-id"
        " or an X-GitHub-Delivery); one without an identity may be stored twice",
        tuple(warnings),
    )
