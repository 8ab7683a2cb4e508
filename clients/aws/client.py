"""Clients of AWS: made of the options of an account, and what their errors mean to us."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from types import MappingProxyType
from typing import Any

import botocore.exceptions as botocore
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.loaders import Loader, create_loader

from ...core.errors import Disconnected, Misconfigured
from .options import AccountOptions

LATER = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "RequestTimeTooSkewed"})
"""Credentials or a signature that were good: new ones are made when the client is opened again."""

REFUSED = frozenset({
    "AccessDenied", "AccessDeniedException", "AuthFailure", "Forbidden", "403", "InvalidAccessKeyId",
    "InvalidClientTokenId", "InvalidSecurity", "InvalidSignatureException", "KmsAccessDenied",
    "KMSAccessDeniedException", "KMSDisabledException", "KMSNotFoundException", "KMSInvalidStateException",
    "KMS.AccessDeniedException", "KMSOptInRequired", "MissingAuthenticationToken", "OptInRequired",
    "SignatureDoesNotMatch", "UnauthorizedOperation", "UnrecognizedClientException",
})  # fmt: skip

UNUSABLE = (
    botocore.NoCredentialsError,
    botocore.PartialCredentialsError,
    botocore.NoRegionError,
    botocore.InvalidRegionError,
    botocore.UnknownRegionError,
    botocore.ProfileNotFound,
    botocore.ConfigParseError,
    botocore.ConfigNotFound,
    botocore.InvalidConfigError,
    botocore.ParamValidationError,
    ValueError,
)

NOTHING: Mapping[str, str] = MappingProxyType({})


def client_of(
    options: AccountOptions,
    service: str,
    *,
    read_timeout: timedelta,
    connections: int,
    attempts: int,
    region: str | None = None,
    endpoint_url: str | None = None,
) -> Any:
    """A client of the service, to be made and entered as an async context within `mapped`. It tries a call
    so often; `region` and `endpoint_url` stand in for those of the options."""
    session = AioSession(profile=options.profile)
    session.register_component("data_loader", _descriptions())
    if options.profile is not None:
        session.get_scoped_config()  # raises for a profile that is not there
    keys: dict[str, Any] = {}
    if options.secret_access_key is not None:
        keys["aws_access_key_id"] = options.access_key_id
        keys["aws_secret_access_key"] = options.secret_access_key.get_secret_value()
    config = AioConfig(
        connect_timeout=options.connect_timeout.total_seconds(),
        read_timeout=read_timeout.total_seconds(),
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": attempts},
        # The client's own name for itself and its look at what we ask take a sixth of the time of a call.
        user_agent="hammerwork",
        parameter_validation=False,
    )
    where = endpoint_url or options.endpoint_url
    keys |= {"region_name": region or options.region, "config": config}
    return session.create_client(service, endpoint_url=where, **keys)  # type: ignore[call-overload]


@cache
def _descriptions() -> Loader:
    """What the client knows of services. To read it takes a tenth of a second, so it is read once."""
    return create_loader()


@contextmanager
def mapped(needed: str, *, absent: Mapping[str, str] = NOTHING) -> Iterator[None]:
    """Errors of the client as what the caller must do about them. `needed` says which rights; `absent` has a
    hint for each code that says that something is not there."""
    try:
        yield
    except botocore.ClientError as error:
        raise _of_answer(error, needed, absent) from error
    except UNUSABLE as error:
        raise Misconfigured(f"AWS cannot be asked: {error}", hint=_unusable_hint(error)) from error
    except (botocore.BotoCoreError, OSError, TimeoutError) as error:
        raise Disconnected(f"AWS does not answer: {error or type(error).__name__}") from error


def code_of(error: botocore.ClientError) -> str:
    """What AWS calls the error."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _of_answer(
    error: botocore.ClientError, needed: str, absent: Mapping[str, str]
) -> Disconnected | Misconfigured:
    code = code_of(error)
    said = f"{error.operation_name}: {code} {error.response.get('Error', {}).get('Message', '')}".rstrip()
    if code in absent:
        return Misconfigured(said, hint=absent[code])
    if code in LATER or "expired" in said.lower():
        return Disconnected(f"{said} (is this machine's clock right?)")
    if code in REFUSED:
        return Misconfigured(said, hint=needed)
    return Disconnected(said)


def _unusable_hint(error: Exception) -> str:
    """What helps where the client is UNUSABLE."""
    match error:
        case botocore.NoRegionError():
            return "set region, or AWS_REGION"
        case botocore.NoCredentialsError() | botocore.PartialCredentialsError():
            return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or give the machine a role"
        case botocore.ProfileNotFound():
            return "profile must be one of ~/.aws/config"
        case _:
            return "check region and endpoint_url"
