"""Publication: a message as it goes to JetStream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Publication(NamedTuple):
    """What is published, and where."""

    subject: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def size(self) -> int:
        """Bytes that the server counts: headers are as lines of text, with one above and one below them."""
        lines = (f"{name}: {value}\r\n" for name, value in self.headers.items())
        return len(self.body) + sum(len(line.encode()) for line in lines) + len("NATS/1.0\r\n\r\n")
