"""How a Kafka cluster is reached, by the bridge and by the sink: its address, TLS and login as options."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, HttpUrl, SecretStr, field_validator, model_validator

from ..options import Options, TlsOptions

ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\],@]+):\d{1,5}")
TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def _split(given: Any) -> Any:
    """A list may be written as one text with commas, as Kafka's own settings are."""
    return [part.strip() for part in given.split(",") if part.strip()] if isinstance(given, str) else given


def is_topic(name: str) -> bool:
    """Whether Kafka would take a topic of this name."""
    return TOPIC.fullmatch(name) is not None and name not in (".", "..")


Words = Annotated[tuple[str, ...], BeforeValidator(_split, json_schema_input_type=str | tuple[str, ...])]
Wait = Annotated[timedelta, Field(gt=timedelta(0))]


class PasswordLogin(Options):
    """A user with a password."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    username: str = Field(min_length=1)
    password: SecretStr = Field(min_length=1)


class OAuthLogin(Options):
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


class MskLogin(Options):
    """Amazon MSK with IAM: the credentials are found as AWS' own tools find them. Needs the extra `msk`."""

    mechanism: Literal["AWS_MSK_IAM"]
    region: str = Field(min_length=1)
    profile: str | None = None
    role_arn: str | None = None


Login = Annotated[PasswordLogin | OAuthLogin | MskLogin, Field(discriminator="mechanism")]


class ClusterOptions(Options):
    """Where a cluster is, and who we are there; `connect_timeout` bounds the way to its first answer."""

    bootstrap: Annotated[Words, Field(min_length=1)]
    """host:port of some brokers; the others are found through them."""
    tls: bool | TlsOptions = False
    """`true`, or a table of PEM files."""
    sasl: Login | None = None
    connect_timeout: Wait = timedelta(seconds=10)

    @field_validator("bootstrap")
    @classmethod
    def _are_addresses(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for address in given:
            if not ADDRESS.fullmatch(address):
                raise ValueError("expects host:port, several of them with commas; no scheme, no password")
        return given

    @property
    def shown(self) -> str:
        return ", ".join(self.bootstrap)


def milliseconds(interval: timedelta) -> int:
    return max(1, round(interval.total_seconds() * 1000))
