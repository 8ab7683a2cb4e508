"""Verdict: what an HTTP answer, or the lack of one, says of a delivery, in words that give nothing away."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import aiohttp

from ...core.job import Dead, Done, Outcome, Retry, Snooze
from .egress import RefusedAddress

GONE = "gone"
TAKEN = Done()
THROTTLED = frozenset({429, 502, 503, 504})
"""The statuses whose Retry-After is honoured, as the Standard Webhooks specification has it."""

LOCAL_FAULT_PAUSE = timedelta(seconds=10)

DIAL_FAULTS = {
    errno.ECONNREFUSED: "connection_refused",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.ETIMEDOUT: "connect_timeout",
    errno.EMFILE: "local_resources",
    errno.ENFILE: "local_resources",
    errno.ENOBUFS: "local_resources",
    errno.ENOMEM: "local_resources",
    errno.EADDRNOTAVAIL: "local_resources",
}

# OpenSSL's X509_V_ERR_… numbers (x509_vfy.h).
CERTIFICATE_FAULTS = {
    9: "tls_not_yet_valid",
    10: "tls_expired",
    18: "tls_untrusted",  # self-signed
    19: "tls_untrusted",  # self-signed in the chain
    20: "tls_untrusted",  # no local issuer
    21: "tls_untrusted",  # first certificate cannot be verified
    23: "tls_revoked",
    62: "tls_hostname",
    64: "tls_hostname",  # an IP address
}

_SECONDS = re.compile(r"-?[0-9]+")
_LONGEST_NUMBER = 12
"""More digits are more seconds than any limit allows; Python refuses to read thousands of them."""


def judge(status: int, retry_after: str | None, longest: timedelta) -> tuple[Outcome, str | None]:
    """The outcome of an answer with this status and Retry-After, and the error's class.

    The destination may ask to wait for at most `longest`; where it asks for nothing, or for no wait, the
    schedule decides.
    """
    error = f"http_{status}"
    if 200 <= status < 300:
        return TAKEN, None
    if status == 410:
        return Dead(GONE), GONE
    if 300 <= status < 400:
        return Retry("redirect_refused"), "redirect_refused"
    if status in THROTTLED and retry_after is not None:
        return Retry(error, wanted_delay(retry_after, longest)), error
    return Retry(error), error


def wanted_delay(retry_after: str, longest: timedelta, *, now: datetime | None = None) -> timedelta | None:
    """How long a Retry-After header (RFC 9110 §10.2.3: seconds, or a date) asks to wait, at most `longest`;
    None for no time, a past one, or what cannot be read."""
    text = retry_after.strip()
    if _SECONDS.fullmatch(text):
        too_long = len(text) > _LONGEST_NUMBER and not text.startswith("-")
        seconds = longest.total_seconds() if too_long else float(text[:_LONGEST_NUMBER])
    else:
        try:
            moment = parsedate_to_datetime(text)
        except (TypeError, ValueError, OverflowError):
            return None
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        seconds = (aware - (now or datetime.now(UTC))).total_seconds()
    return timedelta(seconds=min(seconds, longest.total_seconds())) if seconds > 0 else None


def judge_failure(failure: Exception) -> tuple[Outcome, str]:
    """The outcome of a try that brought no answer, and the error's class. What is short on our own side
    (file descriptors, ports, memory) burns no attempt."""
    error = error_class(failure)
    return (Snooze(LOCAL_FAULT_PAUSE) if error == "local_resources" else Retry(error)), error


def error_class(failure: Exception) -> str:
    """A word for the failure. It says neither what the peer sent nor which address was dialled."""
    match failure:
        case aiohttp.ClientConnectorCertificateError():
            return _certificate_class(failure.certificate_error)
        case aiohttp.ClientConnectorDNSError():
            return _dns_class(failure.os_error)
        case aiohttp.ClientConnectorError():
            return _dial_class(failure.os_error)
        case aiohttp.ConnectionTimeoutError():
            return "connect_timeout"
        case TimeoutError():
            return "timeout"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return "bad_response"
        case aiohttp.ClientOSError() if isinstance(failure.__cause__, ssl.SSLError):
            return "tls_failed"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            return "disconnected"
        case _:
            return "failed"


def _certificate_class(failure: Exception) -> str:
    code = failure.verify_code if isinstance(failure, ssl.SSLCertVerificationError) else 0
    return CERTIFICATE_FAULTS.get(code, "tls_untrusted")


def _dns_class(failure: OSError) -> str:
    missing = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
    return "dns_not_found" if failure.errno in missing else "dns_failed"


def _dial_class(failure: OSError) -> str:
    match failure:
        case RefusedAddress():
            return "refused_address"
        case ssl.SSLError():
            return "tls_failed"
        case _ if failure.errno in DIAL_FAULTS:
            return DIAL_FAULTS[failure.errno]
        case ConnectionError():
            return "disconnected"
        case _:
            return "connect_failed"
