"""RedisLink: a connection to a Redis server, and what its errors mean to us."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from .. import Disconnected, Misconfigured
from ..connection import TLS_HINT, Address, distrusted
from .options import ServerOptions

Command = tuple[bytes | str | int, ...]

PATIENCE = timedelta(seconds=15)
"""How long a server may give no answer before it counts as gone; longer than any read may wait there."""
FAREWELL = 5.0


class RedisLink:
    """A few connections to one server, as many as there are questions at once. Nothing is tried again."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    @classmethod
    def to(
        cls, address: Address, options: ServerOptions, *, name: str, patience: timedelta = PATIENCE
    ) -> Self:
        """Connects to nothing before the first question; each may take `patience` to be answered."""
        client = Redis(
            host=address.host,
            port=address.port,
            db=int(address.path or 0),
            username=address.username,
            password=address.password,
            client_name="".join(c if "!" <= c <= "~" else "_" for c in f"hammerwork.{name}"),
            socket_connect_timeout=options.connect_timeout.total_seconds(),
            socket_timeout=patience.total_seconds(),
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            ssl=address.tls,
            ssl_ca_certs=_text(options.tls.ca_file),
            ssl_certfile=_text(options.tls.cert_file),
            ssl_keyfile=_text(options.tls.key_file),
        )
        client.response_callbacks.clear()  # answers as they came, with fields that an entry has twice
        return cls(client)

    async def ask(self, *command: bytes | str | int, unless: str | None = None) -> Any:
        """The server's answer, bytes as bytes; None where it refuses with the words `unless`. Raises
        Misconfigured and Disconnected."""
        try:
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            if unless is not None and isinstance(error, ResponseError) and unless in str(error):
                return None
            raise _translated(error) from error

    async def ask_all(self, commands: Sequence[Command], *, together: bool = False) -> list[Any]:
        """The answers to commands that are sent at once; with `together` all are carried out or none."""
        sent = [("MULTI",), *commands, ("EXEC",)] if together else commands
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for command in sent:
                    pipeline.execute_command(*command)
                # Where the client raises by itself, it quotes the command, which is nobody's business.
                answers = await pipeline.execute(raise_on_error=False)
            if together and isinstance(answers[-1], list):
                answers = answers[-1]
            for answer in answers:
                if isinstance(answer, ResponseError):
                    raise answer
        except (RedisError, OSError) as error:
            raise _translated(error) from error
        return answers

    async def close(self) -> None:
        try:
            async with asyncio.timeout(FAREWELL):
                await self._client.aclose()
        except (RedisError, OSError):
            return


def _translated(error: Exception) -> Misconfigured | Disconnected:
    """What an error means for who runs the bridge: a setting to fix, or a server to wait for."""
    text = str(error) or type(error).__name__
    code = text.partition(" ")[0]
    match error:
        case AuthenticationError():
            return Misconfigured(text, hint="check the user and the password of the url")
        case NoPermissionError():
            return Misconfigured(text, hint="give the user of the url the commands and keys that it needs")
        case ResponseError() if code == "WRONGTYPE" or "requires the key to exist" in text:
            return Misconfigured(text, hint="stream must name a stream, or nothing that exists yet")
        case ResponseError() if code in ("MOVED", "ASK"):
            return Misconfigured(text, hint="clusters are not supported: name a server that holds the stream")
        case ResponseError() if text.lower().startswith("unknown command"):
            return Misconfigured(text, hint="Redis 6.2 or newer is needed")
        case ResponseError() if "DB index" in text or code == "NOAUTH":
            return Misconfigured(text, hint="check the url")
        case _ if distrusted(error):
            return Misconfigured(text, hint=TLS_HINT)
        case _:
            return Disconnected(text)


def _text(path: object) -> str | None:
    return None if path is None else str(path)
