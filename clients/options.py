"""Options that several brokers have in common: the habits of all of them, and TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ..core.errors import Misconfigured


class Options(BaseModel):
    """Unknown keys are refused, nothing changes after validation, and no error quotes what was given."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, hide_input_in_errors=True)


class TlsOptions(Options):
    """PEM files for a TLS connection; without `ca_file` the system's authorities are trusted."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For a client: TLS 1.2 and newer, the other side always verified.

        Blocks for reading files. Raises Misconfigured for files that cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            raise Misconfigured(
                f"the TLS files cannot be used: {error}",
                hint="check tls.ca_file, tls.cert_file and tls.key_file: PEM, readable, without a passphrase",
            ) from error
        return context
