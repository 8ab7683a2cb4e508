"""Why a client of Kafka could not connect: what its errors say of a login, and what one more try tells."""

from __future__ import annotations

import ssl
from typing import Any

from aiokafka import errors as kafka
from aiokafka.conn import create_conn

from ...core.errors import Disconnected, HammerworkError, Misconfigured
from .options import ClusterOptions, milliseconds

LOGIN_REFUSED = (
    kafka.AuthenticationFailedError,
    kafka.SaslAuthenticationFailed,
    kafka.UnsupportedSaslMechanismError,
    kafka.IllegalSaslStateError,
)


async def why_unreachable(options: ClusterOptions, login: dict[str, Any]) -> HammerworkError:
    """Why a client could not connect. It tells only its log, so one more connection is tried."""
    failure = getattr(login.get("sasl_oauth_token_provider"), "failure", None)
    if isinstance(failure, HammerworkError):
        return failure
    host, _, port = options.bootstrap[0].rpartition(":")
    timeout = milliseconds(options.connect_timeout)
    try:
        connection = await create_conn(host.strip("[]"), int(port), request_timeout_ms=timeout, **login)
    except ssl.SSLError as refused:
        return Misconfigured(f"TLS failed with {options.shown}: {refused.reason}", hint="check tls")
    except LOGIN_REFUSED as refused:
        return login_refused(refused)
    except (OSError, kafka.KafkaError, TimeoutError) as away:
        return Disconnected(f"no broker of {options.shown} can be reached: {away or type(away).__name__}")
    connection.close()
    return Disconnected(f"no broker of {options.shown} could be reached")


def login_refused(error: Exception) -> Misconfigured:
    """What one of LOGIN_REFUSED means."""
    return Misconfigured(
        f"the broker refused the login: {type(error).__name__}: {error}", hint="check sasl and tls"
    )
