"""The options of a Kafka bridge: which topics, from where on, how much at a time, and who we are."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    field_validator,
    model_validator,
)

ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\],@]+):\d{1,5}")
TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def _split(given: Any) -> Any:
    """A list may be written as one text with commas, as Kafka's own settings are."""
    return [part.strip() for part in given.split(",") if part.strip()] if isinstance(given, str) else given


Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
Wait = Annotated[timedelta, Field(gt=timedelta(0))]


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, hide_input_in_errors=True)


class TlsOptions(_Options):
    """PEM files; without `ca_file` the system's authorities are trusted."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class PasswordLogin(_Options):
    """A user with a password."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    username: str = Field(min_length=1)
    password: SecretStr = Field(min_length=1)


class OAuthLogin(_Options):
    """A bearer token: from a token endpoint by the client's credentials (RFC 6749 §4.4), or from a provider
    of your own: package.module:function, called without arguments, that answers the token (a coroutine
    function is awaited, any other is called in a thread) and is asked anew for each connection."""

    mechanism: Literal["OAUTHBEARER"]
    token_url: HttpUrl | None = None
    client_id: str | None = None
    client_secret: SecretStr | None = None
    scope: str | None = None
    provider: str | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        endpoint = {self.token_url, self.client_id, self.client_secret}
        if self.provider is None and None in endpoint:
            raise ValueError("needs token_url, client_id and client_secret, or a provider")
        if self.provider is not None and endpoint != {None}:
            raise ValueError("takes a token endpoint or a provider, not both")
        return self


class MskLogin(_Options):
    """Amazon MSK with IAM: the credentials are found as AWS' own tools find them. Needs the extra `msk`."""

    mechanism: Literal["AWS_MSK_IAM"]
    region: str = Field(min_length=1)
    profile: str | None = None
    role_arn: str | None = None


Login = Annotated[PasswordLogin | OAuthLogin | MskLogin, Field(discriminator="mechanism")]


class HeaderIdentity(_Options):
    """The identity is the text or whole number in this header."""

    header: str = Field(min_length=1)


class JsonIdentity(_Options):
    """The identity is the text or whole number that an RFC 6901 pointer finds in the JSON body."""

    pointer: str = Field(alias="json", pattern="^/")


class KafkaOptions(_Options):
    """How to reach topics and what to make of their records."""

    bootstrap: Annotated[Words, Field(min_length=1)]
    """host:port of some brokers; the others are found through them."""
    topics: Words = ()
    """Topics that must exist. Either these or a `pattern`."""
    pattern: str | None = None
    """A regular expression that a topic's whole name matches; topics that come later join in."""
    exclude: str | None = None
    """A regular expression for topics that the pattern leaves out."""
    group: str | None = Field(None, min_length=1)
    """The consumer group, `hammerwork.NAME` if None. All gateways of one bridge are its members."""
    instance_id: str | None = Field(None, pattern="^[a-zA-Z0-9._-]{1,249}$")
    """A name of this process that outlives it: back within `session_timeout` it causes no rebalance."""
    start: Literal["earliest", "latest", "group"] | datetime = "earliest"
    """Where a partition begins that was never read: its start, its end, where the group's commits stand (its
    start without one), or the first record of that moment or later."""
    on_gap: Literal["hold", "skip"] = "hold"
    """Records that were not read are gone (retention, or the topic was made anew): hold with the exact range,
    or log it and go on with what is there."""
    identity: Literal["offset"] | HeaderIdentity | JsonIdentity = "offset"
    """What makes a record the same message when its producer has sent it twice; `offset`: nothing does."""
    tls: bool | TlsOptions = False
    sasl: Login | None = None
    rack: str | None = None
    """Where this process is: brokers then name a replica nearby to read from."""
    connect_timeout: Wait = timedelta(seconds=10)
    session_timeout: Annotated[timedelta, Field(ge=timedelta(milliseconds=500))] = timedelta(seconds=15)
    """A member that the group has not heard of for so long has lost its partitions."""
    max_poll_interval: Wait = timedelta(minutes=5)
    """A member that takes nothing of what it fetched for so long leaves the group."""
    metadata_max_age: Wait = timedelta(minutes=1)
    """How soon new topics and partitions are found."""
    fetch_size: ByteSize = Field(ByteSize(8 * 1024 * 1024), ge=1)
    """Bytes that one fetch may bring; about three times as much is held in memory."""
    partition_fetch_size: ByteSize = Field(ByteSize(1024 * 1024), ge=1)
    """Bytes of one partition in a fetch; a larger record comes alone."""
    fetch_wait: Wait = timedelta(milliseconds=500)
    """How long a broker waits for records before it answers a fetch with none."""

    @field_validator("bootstrap")
    @classmethod
    def _are_addresses(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for address in given:
            if not ADDRESS.fullmatch(address):
                raise ValueError("expects host:port, several of them with commas; no scheme, no password")
        return given

    @field_validator("topics")
    @classmethod
    def _are_topics(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for topic in given:
            if not TOPIC.fullmatch(topic) or topic in (".", ".."):
                raise ValueError(f"{topic!r} is no topic's name: letters, digits, `.`, `_`, `-`, at most 249")
        return given

    @field_validator("pattern", "exclude")
    @classmethod
    def _is_expression(cls, given: str | None) -> str | None:
        if given is not None:
            try:
                re.compile(given)
            except re.error as error:
                raise ValueError(f"is no regular expression: {error}") from error
        return given

    @field_validator("start")
    @classmethod
    def _has_zone(cls, given: object) -> object:
        if isinstance(given, datetime) and given.tzinfo is None:
            raise ValueError("needs a time zone: 2026-01-31T00:00:00Z")
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if bool(self.topics) == (self.pattern is not None):
            raise ValueError("needs topics or a pattern, one of the two")
        if self.exclude is not None and self.pattern is None:
            raise ValueError("exclude leaves topics out of a pattern; there is none")
        if self.max_poll_interval < self.session_timeout:
            raise ValueError("max_poll_interval must not be shorter than session_timeout")
        return self

    def matcher(self) -> re.Pattern[str] | None:
        """The pattern and what it excludes as one expression for whole names."""
        if self.pattern is None:
            return None
        excluded = f"(?!(?:{self.exclude})$)" if self.exclude is not None else ""
        return re.compile(f"{excluded}(?:{self.pattern})$")
