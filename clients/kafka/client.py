"""The life of a client of Kafka: how it starts and ends, and why it could not connect."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiokafka import errors as kafka
from aiokafka.conn import create_conn

from ...core.errors import Disconnected, HammerworkError, Misconfigured
from .login import Tokens
from .options import ClusterOptions, milliseconds

LOGIN_REFUSED = (
    kafka.AuthenticationFailedError,
    kafka.SaslAuthenticationFailed,
    kafka.UnsupportedSaslMechanismError,
    kafka.IllegalSaslStateError,
)


class Client(Protocol):
    """A consumer or a producer."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


async def start(
    client: Client,
    options: ClusterOptions,
    login: dict[str, Any],
    *,
    discard: Callable[[Any], Awaitable[None]],
    as_ours: Callable[[Exception], HammerworkError],
) -> None:
    """Connect a client that was made with this login, or discard it and raise why it could not."""
    limit = options.connect_timeout.total_seconds()
    try:
        async with asyncio.timeout(limit):
            await client.start()
    except BaseException as error:
        await discard(client)
        match error:
            case TimeoutError():
                raise Disconnected(f"no broker of {options.shown} answered within {limit:g} s") from error
            case kafka.KafkaConnectionError():
                raise await why_unreachable(options, login) from error
            case Exception():
                raise as_ours(error) from error
            case _:
                raise


async def end(client: Client, cut: Callable[[], Awaitable[None]], *, within: float) -> None:
    """Stop a client. What takes more seconds than `within` is cut off, and then has as many once more.
    Never raises."""
    stopping = asyncio.ensure_future(client.stop())
    await asyncio.wait({stopping}, timeout=within)
    if not stopping.done():
        with contextlib.suppress(Exception):
            await cut()
        await asyncio.wait({stopping}, timeout=within)
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        # What it still had under way may have connected anew, and nobody is left who would close that.
        with contextlib.suppress(Exception):
            await cut()
    await asyncio.gather(stopping, return_exceptions=True)


async def why_unreachable(options: ClusterOptions, login: dict[str, Any]) -> HammerworkError:
    """Why a client could not connect. It tells only its log, so one more connection is tried."""
    tokens = login.get("sasl_oauth_token_provider")
    if isinstance(tokens, Tokens) and tokens.failure is not None:
        return tokens.failure
    host, _, port = options.bootstrap[0].rpartition(":")
    timeout = milliseconds(options.connect_timeout)
    try:
        connection = await create_conn(host.strip("[]"), int(port), request_timeout_ms=timeout, **login)
    except ssl.SSLError as refused:
        return Misconfigured(f"TLS failed with {options.shown}: {refused.reason}", hint="check tls")
    except LOGIN_REFUSED as refused:
        return login_refused(refused)
    except (OSError, kafka.KafkaError, TimeoutError) as away:
        return Disconnected(f"no broker of {options.shown} can be reached: {away or type(away).__name__}")
    connection.close()
    return Disconnected(f"no broker of {options.shown} could be reached")


def login_refused(error: Exception) -> Misconfigured:
    """What one of LOGIN_REFUSED means."""
    return Misconfigured(
        f"the broker refused the login: {type(error).__name__}: {error}", hint="check sasl and tls"
    )
