"""NatsLink: a connection to NATS for as long as it lives, the messages on their way, and what errors mean."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Self, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import AuthorizationError, Error
from nats.js.api import ConsumerInfo
from nats.js.errors import APIError, BadRequestError, NoStreamResponseError, NotFoundError

from .. import BadMessage, Disconnected, Misconfigured
from ..connection import TLS_HINT, Address, distrusted
from .options import ServerOptions
from .publication import Publication

Answer = TypeVar("Answer")

STEP = 10.0
"""Seconds that the server may take over one answer before it counts as gone."""
FAREWELL = 5.0
PAUSE = 0.1
"""Seconds that an answer takes at least that should have waited for messages and did not."""
GRACE = 1.0
"""Seconds after its time in which a question may still be answered."""
ENDED = ("404", "408")
"""The statuses of a question that nothing, or nothing more, came in answer to."""
NO_CONSUMER = 10014
"""The code of the error that says that a consumer, and not its stream, is missing."""
TOO_LARGE = 10054
"""The code of the error that says that a stream takes no message of this size."""
HARMLESS = ("size exceeds", "exceeded", "batch completed")
"""Words of a 409 that ends a question and leaves the consumer as it is."""


class Consumer(NamedTuple):
    """A durable consumer of a stream."""

    stream: str
    name: str

    def __str__(self) -> str:
        return f"{self.stream}.{self.name}"


class NatsLink:
    """A connection that is never made again, only replaced. `lost` is the reason once it is dead.

    `buffer` holds what arrived and was not taken. One question for messages is open at a time: the server
    answers it with messages as they come, until it has sent as many as were asked for, or says that it is
    over. A server that changes hands may forget it.
    """

    def __init__(self) -> None:
        self.client = Client()
        self._streams = self.client.jetstream()
        self.buffer: deque[Msg] = deque()
        self.lost: Misconfigured | Disconnected | None = None
        self._dead: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._faults: list[Exception] = []
        self._arrival = asyncio.Event()
        self._inbox = ""
        self._asked = 0
        """The number of the latest question."""
        self._owed = 0
        """How many messages may still come in answer to it."""

    @classmethod
    async def connect(cls, address: Address, options: ServerOptions, *, name: str) -> Self:
        """Raises Misconfigured and Disconnected."""
        link = cls()
        scheme = "tls" if address.tls else "nats"
        hosts = (f"{address.host}:{address.port}", *options.hosts)
        tls = await asyncio.to_thread(options.tls.context) if address.tls else None
        timeout = options.connect_timeout.total_seconds()
        try:
            async with asyncio.timeout(timeout):
                await link.client.connect(
                    servers=[f"{scheme}://{host}" for host in hosts],
                    name=f"hammerwork {name}",
                    user=address.username,
                    password=address.password,
                    token=options.token.get_secret_value() if options.token else None,
                    tls=tls,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    dont_randomize=True,
                    connect_timeout=max(1, round(timeout)),
                    ping_interval=max(1, round(options.heartbeat.total_seconds())),
                    max_outstanding_pings=2,
                    error_cb=link._on_error,
                    closed_cb=link._on_closed,
                )
        except BaseException as error:
            await link.close()
            if isinstance(error, Error | OSError | TimeoutError):
                fault = _most_telling([*link._faults, error])
                if isinstance(fault, Disconnected):
                    told = ", ".join(host.rpartition("@")[2] for host in hosts)
                    fault = Disconnected(f"NATS at {told} is away ({fault})")
                raise fault from error
            raise
        return link

    async def ask(self, request: Awaitable[Answer]) -> Answer:
        """The server's answer to a request, or Misconfigured (it refuses) or Disconnected (it is gone). The
        client itself does not give up on an answer when the connection is lost."""
        asking = asyncio.ensure_future(request)
        try:
            await asyncio.wait((asking, self._dead), timeout=STEP, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
        except (Error, OSError, TimeoutError) as error:
            raise self.lost or _translated(error) from error
        finally:
            asking.cancel()
        raise self.lost or Disconnected(f"the server did not answer within {STEP:g} s")

    async def consumer(self, stream: str, name: str) -> ConsumerInfo | None:
        """What the server tells of a consumer; None where there is none. Misconfigured without the stream."""

        async def told() -> ConsumerInfo | None:
            try:
                info: ConsumerInfo = await self.client.jsm().consumer_info(stream, name)
            except NotFoundError as error:
                if error.err_code == NO_CONSUMER:
                    return None
                raise
            return info

        return await self.ask(told())

    async def subscribe(self) -> None:
        """Be ready for messages."""
        self._inbox = self.client.new_inbox()
        await self.ask(self.client.subscribe(f"{self._inbox}.*", cb=self._on_message))

    async def gather(
        self, stream: str, name: str, count: int, size: int, *, wait: timedelta, linger: timedelta
    ) -> list[Msg]:
        """At most `count` messages of a consumer and about `size` bytes: waits for the first of them, and
        then as long as `linger` for more. No question is open when this returns: what is handed back later
        would come straight here in answer to it."""
        consumer = Consumer(stream, name)
        await self._question(consumer, count, size)
        if not self.buffer and wait:  # for one of any size, so that a large one does not stop all others
            await self._question(consumer, 1, wait=wait.total_seconds())
        missing, left = count - len(self.buffer), size - sum(len(message.data) for message in self.buffer)
        if self.buffer and missing > 0 and left > 0 and linger:
            await asyncio.sleep(linger.total_seconds())
            await self._question(consumer, missing, left)
        return [self.buffer.popleft() for _ in range(min(count, len(self.buffer)))]

    async def tell(self, replies: Sequence[str], what: bytes) -> None:
        """Say the same of several messages; they have reached the server when this returns."""
        if not replies:
            return
        try:
            for reply in replies:
                await self.client.publish(reply, what)
        except (Error, OSError) as error:
            raise self.lost or _translated(error) from error
        await self.ask(self.client.flush(round(STEP)))

    async def publish(
        self, publications: Sequence[Publication], *, within: float
    ) -> list[BadMessage | Misconfigured | Disconnected | None]:
        """Publish these to JetStream, all at once. For each: None when a stream has it, else what is in its
        way, for ever (BadMessage) or until that has changed."""
        asking = [asyncio.create_task(self._published(one, within), name="publish") for one in publications]
        answering = asyncio.create_task(asyncio.wait(asking), name="answers")
        try:
            await asyncio.wait((answering, self._dead), return_when=asyncio.FIRST_COMPLETED)
            gone = self.lost or Disconnected("the connection was closed")
            return [asked.result() if asked.done() else gone for asked in asking]
        finally:
            for task in (answering, *asking):
                task.cancel()

    async def _published(
        self, one: Publication, within: float
    ) -> BadMessage | Misconfigured | Disconnected | None:
        """What is too large is not even sent: the server would end the connection."""
        if one.size > (most := self.client.max_payload):
            return BadMessage("too_large", f"{one.size} bytes, the server takes {most}")
        try:
            async with asyncio.timeout(within):
                await self._streams.publish(one.subject, one.body, timeout=within, headers={**one.headers})
        except APIError as error:
            if error.err_code == TOO_LARGE:
                return BadMessage("too_large", f"{one.size} bytes, which the stream does not take")
            return _translated(error)
        except NoStreamResponseError:
            return Disconnected(f"no stream takes {one.subject}, or it does not answer")
        except (Error, OSError, TimeoutError) as error:
            return self.lost or _translated(error)
        return None

    async def close(self) -> None:
        """Disconnect. Idempotent; takes FAREWELL at most; never raises."""
        self._lose(Disconnected("the connection was closed"))
        with contextlib.suppress(Error, OSError, TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await self.client.close()

    async def _question(
        self, consumer: Consumer, count: int, size: int | None = None, *, wait: float = 0.0
    ) -> None:
        """Ask for messages and wait until the answer is complete."""
        self._asked, self._owed = self._asked + 1, count
        question: dict[str, Any] = {"batch": count}
        question |= {"expires": round(wait * 1e9)} if wait else {"no_wait": True}
        if size is not None:
            question["max_bytes"] = size
        subject, reply = f"$JS.API.CONSUMER.MSG.NEXT.{consumer}", f"{self._inbox}.{self._asked}"
        began = asyncio.get_running_loop().time()
        await self.ask(self.client.publish(subject, json.dumps(question).encode(), reply=reply))
        await self._answered(wait + GRACE)
        if self._owed and await self.consumer(*consumer) is None:
            raise Disconnected(f"the consumer {consumer.name!r} is gone")
        took = asyncio.get_running_loop().time() - began
        if wait and not self.buffer and took < PAUSE:
            await asyncio.sleep(min(wait, PAUSE) - took)

    async def _answered(self, within: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._owed and self.lost is None:
                    self._arrival.clear()
                    await self._arrival.wait()
        if self.lost is not None:
            raise self.lost

    async def _on_message(self, message: Msg) -> None:
        self._arrival.set()
        if not message.subject.startswith(self._inbox):
            self.buffer.append(message)
            self._owed = max(0, self._owed - 1)
            return
        headers = message.headers or {}
        status, words = headers.get("Status", ""), headers.get("Description", "").lower()
        if message.subject != f"{self._inbox}.{self._asked}" or status == "100":
            return
        self._owed = 0
        if status not in ENDED and not any(harmless in words for harmless in HARMLESS):
            self._lose(Disconnected(f"the server ended the question: {status} {words}".rstrip()))

    async def _on_error(self, error: Exception) -> None:
        self._faults.append(error)
        if "permissions violation" in str(error).lower():
            self._lose(_translated(error))

    async def _on_closed(self) -> None:
        error = self.client.last_error
        self._lose(_translated(error) if error else Disconnected("the connection was closed"))

    def _lose(self, reason: Misconfigured | Disconnected) -> None:
        self.lost = self.lost or reason
        if not self._dead.done():
            self._dead.set_result(None)
        self._arrival.set()


def _most_telling(faults: Sequence[BaseException]) -> Misconfigured | Disconnected:
    """Of several faults of one try to connect: a refusal often ends with a connection that is reset."""
    told = [_translated(fault) for fault in faults]
    return next((fault for fault in told if isinstance(fault, Misconfigured)), told[0])


def _translated(error: BaseException) -> Misconfigured | Disconnected:
    """What an error means for who runs the bridge: a setting to fix, or a server to wait for."""
    text = str(error) or type(error).__name__
    match error:
        case AuthorizationError() | Error() if "authorization violation" in text.lower():
            return Misconfigured(text, hint="check the user and the password of the url, or the token")
        case NotFoundError() | BadRequestError():
            return Misconfigured(_description(error), hint="check the names of stream, consumer and subject")
        case APIError():
            return Disconnected(_description(error))
        case Error() if "permissions violation" in text.lower():
            return Misconfigured(text, hint="allow the user of the url $JS.API.>, $JS.ACK.> and _INBOX.>")
        case _ if distrusted(error):
            return Misconfigured(text, hint=TLS_HINT)
        case _:
            return Disconnected(text)


def _description(error: APIError) -> str:
    return error.description or str(error)
