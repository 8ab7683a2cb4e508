"""An HTTP server that misbehaves on purpose, byte by byte, and an authority for its bad certificates."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it came in; header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Exchange:
    """One request and the raw connection to answer it on."""

    request: Request
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    sent: int = 0

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
        self.sent += len(data)
        await asyncio.sleep(0)  # drain alone lets nobody else run while the buffer has room

    async def stall(self) -> None:
        """Say nothing more until the client goes away."""
        while await self.reader.read(65_536):
            pass


Behaviour = Callable[[Exchange], Awaitable[None]]


@dataclass(slots=True)
class HostileServer:
    """Listens on loopback; `behaviours` say what a path does, any other path answers 200.

    `connections` counts what was accepted, `requests` holds what was read to its end, in order.
    """

    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    scheme: str = "http"
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def answers(self, path: str, raw: bytes) -> str:
        """Make the path answer these bytes every time; its URL."""

        async def answer(exchange: Exchange) -> None:
            await exchange.send(raw)

        return self.does(path, answer)

    def does(self, path: str, behaviour: Behaviour) -> str:
        """Make the path do this; its URL."""
        self.behaviours[path] = behaviour
        return self.url(path)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._notify()
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                while True:
                    await self._exchange(reader, writer)
        except asyncio.CancelledError:
            pass  # the server stops; asyncio would log a handler's cancellation
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(path=first.split(" ")[1], headers=headers, body=body)
        self.requests.append(request)
        await self._notify()
        behaviour = self.behaviours.get(request.path)
        exchange = Exchange(request, reader, writer)
        await (exchange.send(OK) if behaviour is None else behaviour(exchange))

    async def has(self, *, connections: int = 0, requests: int = 0) -> None:
        """Wait until that many connections were accepted and that many requests read."""
        async with asyncio.timeout(5):
            async with self._changed:
                await self._changed.wait_for(
                    lambda: self.connections >= connections and len(self.requests) >= requests
                )

    @asynccontextmanager
    async def running(self, context: ssl.SSLContext | None = None) -> AsyncIterator[HostileServer]:
        """The server, listening on a free port of 127.0.0.1; over TLS with a context."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        self.scheme = "http" if context is None else "https"
        try:
            yield self
        finally:
            server.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks)
            await server.wait_closed()


@asynccontextmanager
async def full_backlog() -> AsyncIterator[int]:
    """The port of a listener whose queue is full: the kernel drops further attempts to connect."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port: int = listener.getsockname()[1]
        fillers: list[socket.socket] = []
        try:
            while True:
                filler = socket.socket()
                filler.setblocking(False)
                fillers.append(filler)
                await asyncio.wait_for(loop.sock_connect(filler, ("127.0.0.1", port)), 0.2)
        except TimeoutError:
            yield port
        finally:
            for filler in fillers:
                filler.close()


class Authority:
    """A certificate authority of its own, whose `ca_file` a client may trust."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(_pem(self._certificate(self._name, self._key, is_authority=True)))

    def context(
        self,
        *,
        names: Iterable[str] = ("127.0.0.1", "localhost"),
        starts: timedelta = timedelta(days=-2),
        ends: timedelta = timedelta(days=2),
        self_signed: bool = False,
    ) -> ssl.SSLContext:
        """A server's context, with a certificate for these names between these times from now."""
        certificate, key = self.issue(names=names, starts=starts, ends=ends, self_signed=self_signed)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context

    def issue(
        self,
        *,
        names: Iterable[str] = (),
        starts: timedelta = timedelta(days=-2),
        ends: timedelta = timedelta(days=2),
        self_signed: bool = False,
    ) -> tuple[Path, Path]:
        """The PEM files of a fresh certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        signer = (subject, key) if self_signed else (self._name, self._key)
        certificate = self._certificate(
            subject, key, names=names, starts=starts, ends=ends, issuer=signer[0], signing=signer[1]
        )
        files = self._folder / "leaf.pem", self._folder / "leaf.key"
        files[0].write_bytes(_pem(certificate))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _certificate(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        names: Iterable[str] = (),
        starts: timedelta = timedelta(days=-2),
        ends: timedelta = timedelta(days=2),
        issuer: x509.Name | None = None,
        signing: ec.EllipticCurvePrivateKey | None = None,
        is_authority: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + starts)
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if found := [_general_name(name) for name in names]:
            builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
        return builder.sign(signing or key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
