"""What the NATS bridge and the NATS sink can be told."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field, SecretStr

from .. import JsonIdentity, TlsOptions
from ..options import Options

Body = Literal["cloudevents", "cloudevents-binary"]

NAME = r"^[^\s.*>/\\]+$"
"""What a stream or a consumer may be called."""
SUBJECT = r"^[^\s]+$"


class ServerOptions(Options):
    """Where the server is."""

    url: SecretStr
    """nats:// or tls://user:password@host:4222."""
    hosts: tuple[str, ...] = ()
    """More servers of the cluster, as host:port, for when that of the url does not answer."""
    token: SecretStr | None = None
    """For servers that want a token in place of a user."""
    tls: TlsOptions = TlsOptions()
    connect_timeout: timedelta = Field(timedelta(seconds=10), gt=timedelta(0))
    """How long it may take to connect."""
    heartbeat: timedelta = Field(timedelta(seconds=20), ge=timedelta(seconds=1), le=timedelta(hours=1))
    """The connection counts as lost after three of these without an answer."""


class HeaderName(Options):
    """The text in this header."""

    header: str = Field(min_length=1)


class NatsOptions(ServerOptions):
    """Which stream to read, by which consumer, and what to make of its messages."""

    stream: str = Field(pattern=NAME)
    """The name of the stream."""
    consumer: str = Field("hammerwork", pattern=NAME)
    """The durable pull consumer. Every message goes to one of those who pull from it."""
    declare: Literal["create", "verify"] = "create"
    """`create`: make the consumer where it is missing. `verify`: it must exist, as the stream always must."""
    subject: str | None = Field(None, pattern=SUBJECT)
    """Only these of the stream's messages: orders.> or orders.*.new. None: all."""
    start: str = Field("beginning", pattern=r"^(beginning|end|\d+)$")
    """Where a consumer that is created begins: `beginning`, `end`, or at this sequence of the stream."""
    lease: timedelta = Field(timedelta(seconds=30), ge=timedelta(seconds=1), le=timedelta(hours=24))
    """Ack wait of a consumer that is created: what is in hand is confirmed three times as often, and comes
    again when it was not."""
    in_flight: int = Field(1500, ge=1)
    """Max ack pending of a consumer that is created: how many messages may be in hand, of all who pull."""
    release_delay: timedelta = Field(timedelta(0), ge=timedelta(0))
    """How long what was handed back stays away."""
    confirm: bool = False
    """Wait for the server's answer to each acknowledgement: slower, and fewer messages come twice."""
    identity: Literal["message_id", "sequence", "none"] | HeaderName | JsonIdentity = "message_id"
    """What makes a message the same message when it comes again. `message_id`: its header Nats-Msg-Id or,
    where it has none, its sequence in the stream."""
    key: Literal["subject"] | HeaderName | None = None
    """What the message's key is: its subject, or a header."""


class NatsSinkOptions(ServerOptions):
    """The subject that events are published to."""

    subject: str = Field(pattern=SUBJECT)
    """`{type}` stands for the event's type (job.completed), `{queue}` for the job's queue."""
    stream: str | None = Field(None, pattern=NAME)
    """The stream that must take them; any other is refused."""
    body: Body = "cloudevents"
    """`cloudevents`: the event as one JSON object. `cloudevents-binary`: its attributes as `ce-` headers, its
    data as the body."""
    timeout: timedelta = Field(timedelta(seconds=5), gt=timedelta(0), le=timedelta(minutes=1))
    """How long the stream may take to say that it has an event."""
