"""How AWS is reached, by bridges and sinks: region, endpoint and credentials as options."""

from __future__ import annotations

from datetime import timedelta
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from ..options import Options


def http_address(value: str | None) -> str | None:
    """The value, which must be a place that HTTP goes to. Raises ValueError."""
    if value is not None:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError("must be http:// or https:// with a host, and no user or password")
    return value


class AccountOptions(Options):
    """Where a service is, and who we are there."""

    region: str | None = Field(None, min_length=1)
    """None: what AWS_REGION, AWS_DEFAULT_REGION or the profile says."""
    endpoint_url: str | None = None
    """Another place than AWS: an emulator, or a private endpoint."""
    profile: str | None = Field(None, min_length=1)
    """A profile of ~/.aws/config, which may name a role to assume; None: the standard chain."""
    access_key_id: str | None = Field(None, min_length=1)
    """Fixed keys, in place of the standard chain of credentials."""
    secret_access_key: SecretStr | None = None
    connect_timeout: timedelta = Field(timedelta(seconds=5), gt=timedelta(0))

    @field_validator("endpoint_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        return http_address(value)

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key are given together or not at all")
        if self.access_key_id is not None and self.profile is not None:
            raise ValueError("profile and access_key_id exclude each other")
        return self
