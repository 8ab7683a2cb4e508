"""What the MQTT bridge can be told."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from .. import JsonIdentity, TlsOptions
from ..options import Options


def _usable_filter(topic: str) -> str:
    levels = topic.split("/")
    misplaced = [
        n for n, level in enumerate(levels) if "#" in level and (level != "#" or n < len(levels) - 1)
    ]
    if not topic or "\0" in topic or misplaced or any("+" in level and level != "+" for level in levels):
        raise ValueError(f"{topic!r} is no topic filter: + stands for one level, # for all from there on")
    return topic


Filter = Annotated[str, AfterValidator(_usable_filter)]


class PropertyName(Options):
    """The text in this user property."""

    property: str = Field(min_length=1)


class MqttOptions(Options):
    """Which topics to read, in which session, and what to make of their messages."""

    url: SecretStr
    """mqtt:// or mqtts://user:password@host:1883."""
    topics: tuple[Filter, ...] = Field(min_length=1)
    """Topic filters: plant/+/alarms, orders/#."""
    share: str | None = Field(None, pattern=r"^[^\s/+#]+$")
    """A group that shares the messages with others of its name, each going to one of them."""
    client_id: str | None = Field(None, min_length=1, max_length=128)
    """What the broker knows the session by; no two may be connected under the same. None: hammerwork.NAME."""
    session_expiry: timedelta = Field(timedelta(days=7), gt=timedelta(0), le=timedelta(days=365))
    """How long the broker keeps the session, and the messages for it, while nobody is connected."""
    receive_maximum: int = Field(1000, ge=1, le=65_535)
    """How many messages the broker may send ahead of their acknowledgement; all are held in memory."""
    retained: Literal["new", "always", "never"] = "new"
    """When the retained messages of the topics are taken: with a `new` session, `always` anew, or `never`."""
    identity: Literal["none"] | PropertyName | JsonIdentity = "none"
    """What makes a message the same message when it comes again: a user property, a JSON pointer into the
    body, or nothing. MQTT itself has nothing."""
    key: Literal["topic"] | PropertyName | None = None
    """What the message's key is: its topic, or a user property."""
    tls: TlsOptions = TlsOptions()
    connect_timeout: timedelta = Field(timedelta(seconds=10), gt=timedelta(0))
    """How long it may take to connect."""
    heartbeat: timedelta = Field(timedelta(seconds=20), ge=timedelta(seconds=1), le=timedelta(hours=1))
    """The connection counts as lost after two of these without an answer."""
