"""How the extras reach their servers: a URL that holds the credentials, and TLS."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from . import Misconfigured, TlsOptions


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL says. `shown` is the URL without user, password and query, fit for logs."""

    host: str
    port: int
    username: str | None
    password: str | None
    path: str
    shown: str
    tls: bool

    def __repr__(self) -> str:
        return f"Address({self.shown})"


def address_of(url: SecretStr, tls: TlsOptions, *, schemes: Mapping[str, int], secure: str) -> Address:
    """The parts of `url`. `schemes` gives the default port of each scheme, `secure` is the one with TLS.

    Raises Misconfigured for a URL that cannot be used.
    """
    hint = f"{secure}://user:password@host:port, with what is not a letter or digit in % notation"
    try:
        parts = urlsplit(url.get_secret_value())
        host, port = parts.hostname, parts.port
    except ValueError:
        # The cause is cut off: its text could quote the password.
        raise Misconfigured("url cannot be read", hint=hint) from None
    if parts.scheme not in schemes or not host:
        names = " or ".join(f"{scheme}://" for scheme in schemes)
        raise Misconfigured(f"url must be {names} with a host, not {parts.scheme!r}", hint=hint)
    if parts.query or parts.fragment:
        raise Misconfigured("url must not carry a query", hint="use the settings of the plugin")
    if parts.scheme != secure and tls != TlsOptions():
        raise Misconfigured(f"tls is set but the url is {parts.scheme}://", hint=f"write {secure}://")
    bracketed = f"[{host}]" if ":" in host else host
    port = port or schemes[parts.scheme]
    return Address(
        host=host,
        port=port,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        path=unquote(parts.path.strip("/")),
        shown=f"{parts.scheme}://{bracketed}:{port}{parts.path.rstrip('/')}",
        tls=parts.scheme == secure,
    )


def distrusted(error: BaseException | None) -> bool:
    """Whether a failure to connect comes down to a certificate that was not accepted."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


TLS_HINT = "set tls.ca_file to the authority of the server"
