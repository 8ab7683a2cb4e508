"""Logging in to Kafka: the arguments of a client for TLS and SASL, and where bearer tokens come from."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, assert_never

import aiohttp
from aiokafka.abc import AbstractTokenProvider

from ...core.errors import Disconnected, HammerworkError, Misconfigured, MissingExtra
from ...core.importing import named_object
from ..options import TlsOptions
from .options import ClusterOptions, MskLogin, OAuthLogin, PasswordLogin

EARLY = 60.0
"""Seconds before its end at which a token is replaced."""
TOKEN_PATIENCE = aiohttp.ClientTimeout(total=10)

Ask = Callable[[], Awaitable[tuple[str, float | None]]]
"""Asks for a token; the token, and the seconds that it is good for."""


async def login_arguments(options: ClusterOptions) -> dict[str, Any]:
    """What an aiokafka client is told about TLS and SASL. Raises Misconfigured and MissingExtra."""
    arguments: dict[str, Any] = {}
    encrypted = options.tls is not False
    if encrypted:
        files = options.tls if isinstance(options.tls, TlsOptions) else TlsOptions()
        arguments["ssl_context"] = await asyncio.to_thread(files.context)
    match options.sasl:
        case None:
            arguments["security_protocol"] = "SSL" if encrypted else "PLAINTEXT"
            return arguments
        case PasswordLogin(mechanism=mechanism, username=username, password=password):
            arguments["sasl_mechanism"] = mechanism
            arguments["sasl_plain_username"] = username
            arguments["sasl_plain_password"] = password.get_secret_value()
        case OAuthLogin() as login:
            ask = _ask_endpoint(login) if login.provider is None else _ask_provider(login.provider)
            arguments["sasl_mechanism"] = "OAUTHBEARER"
            arguments["sasl_oauth_token_provider"] = Tokens(ask)
        case MskLogin() as login:
            arguments["sasl_mechanism"] = "OAUTHBEARER"
            arguments["sasl_oauth_token_provider"] = Tokens(_ask_msk(login))
        case other:
            assert_never(other)
    arguments["security_protocol"] = "SASL_SSL" if encrypted else "SASL_PLAINTEXT"
    return arguments


class Tokens(AbstractTokenProvider):  # type: ignore[misc]
    """Gives each new connection a token, and asks for one only when the last is about to end.

    What goes wrong is told to the client as a ConnectionError, which it takes for a broker that is away;
    `failure` is what it was.
    """

    def __init__(self, ask: Ask) -> None:
        self.failure: HammerworkError | None = None
        self._ask = ask
        self._token = ""
        self._good_until = 0.0
        self._lock = asyncio.Lock()

    async def token(self) -> str:
        async with self._lock:
            if time.monotonic() >= self._good_until:
                await self._renew()
            return self._token

    async def _renew(self) -> None:
        try:
            self._token, seconds = await self._ask()
        except HammerworkError as error:
            self.failure = error
            raise ConnectionError(str(error)) from error
        self.failure = None
        self._good_until = 0.0 if seconds is None else time.monotonic() + seconds - min(EARLY, seconds / 2)


def _ask_endpoint(login: OAuthLogin) -> Ask:
    form = {"grant_type": "client_credentials"}
    if login.scope is not None:
        form["scope"] = login.scope
    secret = login.client_secret.get_secret_value() if login.client_secret is not None else ""
    headers = {"Authorization": aiohttp.encode_basic_auth(login.client_id or "", secret)}
    url = str(login.token_url)

    async def ask() -> tuple[str, float | None]:
        try:
            async with (
                aiohttp.ClientSession(timeout=TOKEN_PATIENCE) as session,
                session.post(url, data=form, headers=headers, allow_redirects=False) as answer,
            ):
                if answer.status >= 500 or answer.status == 429:
                    raise Disconnected(f"the token endpoint answered {answer.status}")
                if answer.status != 200:
                    raise Misconfigured(
                        f"the token endpoint refused us with {answer.status}",
                        hint="check sasl.token_url, sasl.client_id, sasl.client_secret and sasl.scope",
                    )
                found = await answer.json(content_type=None)
                return str(found["access_token"]), float(found.get("expires_in", 300))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Disconnected(f"the token endpoint is away: {type(error).__name__}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Misconfigured(
                "the token endpoint answered no token", hint="check sasl.token_url"
            ) from error

    return ask


def _ask_provider(path: str) -> Ask:
    provider = named_object(path)
    if not callable(provider):
        raise Misconfigured(f"sasl.provider {path!r} cannot be called", hint="name a function")

    async def ask() -> tuple[str, float | None]:
        try:
            found = await asyncio.to_thread(provider)
            token = await found if inspect.isawaitable(found) else found
        except Exception as error:
            raise Disconnected(f"sasl.provider failed: {type(error).__name__}") from error
        if not isinstance(token, str) or not token:
            raise Misconfigured(f"sasl.provider {path!r} answered no text", hint="it must answer the token")
        return token, None

    return ask


def _ask_msk(login: MskLogin) -> Ask:
    try:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider as signer
    except ModuleNotFoundError as error:
        raise MissingExtra("sasl.mechanism AWS_MSK_IAM", "msk") from error

    def sign() -> tuple[str, int]:
        if login.role_arn is not None:
            return signer.generate_auth_token_from_role_arn(login.region, login.role_arn)  # type: ignore[no-any-return]
        if login.profile is not None:
            return signer.generate_auth_token_from_profile(login.region, login.profile)  # type: ignore[no-any-return]
        return signer.generate_auth_token(login.region)  # type: ignore[no-any-return]

    async def ask() -> tuple[str, float | None]:
        try:
            token, expires_at = await asyncio.to_thread(sign)
        except Exception as error:
            raise Misconfigured(
                f"no token for MSK could be signed: {type(error).__name__}",
                hint="give AWS credentials as for AWS' own tools; check sasl.region, profile and role_arn",
            ) from error
        return token, expires_at / 1000 - time.time()

    return ask
