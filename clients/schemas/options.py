"""Options: where a schema registry is and who we are to it, the same for bridges and sinks."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from yarl import URL

from ..options import Options, TlsOptions


def _registry_url(text: str) -> str:
    try:
        url = URL(text)
    except ValueError:
        raise ValueError("cannot be read as a URL") from None
    if url.scheme not in ("http", "https") or not url.raw_host or url.raw_query_string or url.raw_fragment:
        raise ValueError("must be http:// or https://host:port, with a path where the registry has one")
    if url.raw_user is not None or url.raw_password is not None:
        raise ValueError("must not hold a user or password: set username and password")
    return text.rstrip("/")


class RegistryOptions(Options):
    """A schema registry that speaks Confluent's REST API (Confluent, Apicurio, Karapace, Redpanda, …)."""

    url: Annotated[str, AfterValidator(_registry_url)]
    """http:// or https://host:port, with the path where there is one (Apicurio: /apis/ccompat/v7)."""
    username: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None
    """Sent as `Authorization: Bearer …`, in place of a user and password."""
    timeout: timedelta = Field(default=timedelta(seconds=10), gt=timedelta(0))
    """For one question, from DNS to the end of the answer."""
    tls: TlsOptions = TlsOptions()

    @model_validator(mode="after")
    def _one_identity(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if self.username is not None and self.token is not None:
            raise ValueError("give a username and password, or a token, not both")
        return self
