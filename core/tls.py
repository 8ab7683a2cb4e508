"""TLS for clients of ours: the other side is always verified."""

from __future__ import annotations

import ssl
from pathlib import Path

from .errors import Misconfigured


def client_context(*, ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """A context from PEM files, TLS 1.2 and newer; without `ca_file` the system's authorities are trusted.

    Blocks for reading files. Raises Misconfigured for files that cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if cert_file is not None:
            context.load_cert_chain(cert_file, key_file)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise Misconfigured(
            f"the TLS files cannot be used: {error}",
            hint="check tls.ca_file, tls.cert_file and tls.key_file: PEM, readable, without a passphrase",
        ) from error
    return context
