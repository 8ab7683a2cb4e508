"""What the Redis bridge and the Redis sink can be told."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field, SecretStr

from .. import JsonIdentity, TlsOptions
from ..options import Options


class ServerOptions(Options):
    """Where the server is."""

    url: SecretStr
    """redis:// or rediss://user:password@host:6379/0, the number being the database."""
    tls: TlsOptions = TlsOptions()
    connect_timeout: timedelta = Field(timedelta(seconds=10), gt=timedelta(0))
    """How long it may take to connect."""


class FieldIdentity(Options):
    """The identity is the text in this field of the entry."""

    field: str = Field(min_length=1)


class RedisOptions(ServerOptions):
    """Which stream to read, and what to make of its entries."""

    stream: str = Field(min_length=1)
    """The key of the stream."""
    group: str = Field("hammerwork", min_length=1)
    """The consumer group. Every entry goes to one consumer of it."""
    consumer: str | None = Field(None, min_length=1)
    """The name of this process in the group, and of no other. None: a random one."""
    declare: Literal["create", "verify"] = "create"
    """`create`: make the group, and the stream, where they are missing. `verify`: they must exist."""
    start: str = Field("beginning", pattern=r"^(beginning|end|\d+(-\d+)?)$")
    """Where a group that is created begins: `beginning`, `end`, or behind the entry of this id."""
    lease: timedelta = Field(timedelta(seconds=60), ge=timedelta(seconds=1), le=timedelta(hours=24))
    """How long an entry may stay with a consumer that gives no answer before another takes it over."""
    body_field: str | None = Field(None, min_length=1)
    """The field that holds the body; the others become headers. None: the whole entry, as a JSON object."""
    key_field: str | None = Field(None, min_length=1)
    """The field that holds the message's key."""
    identity: Literal["entry", "none"] | FieldIdentity | JsonIdentity = "entry"
    """What makes a message the same message when it comes again: the entry's id, a field, a JSON pointer into
    the body, or nothing."""
    after: Literal["keep", "delete"] = "keep"
    """What becomes of an entry that is stored: it stays in the stream for others, or is deleted from it."""


class RedisSinkOptions(ServerOptions):
    """The stream that events are added to."""

    stream: str = Field(min_length=1)
    """The key of the stream; it is made with the first event."""
    max_length: int | None = Field(None, ge=1)
    """About how many entries the stream keeps, the newest. None: all of them."""
    timeout: timedelta = Field(timedelta(seconds=5), gt=timedelta(0), le=timedelta(minutes=1))
    """How long the server may take to say that it has an event."""
