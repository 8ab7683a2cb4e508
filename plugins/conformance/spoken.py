"""Spoken: everything that is logged while a test runs, as text in which a secret would be found."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import structlog


class Spoken(logging.Handler):
    """Hears both structlog and the standard library's logging, at every level."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> None:
        self.lines.append(repr(event))
        if event.get("exc_info") and sys.exc_info()[0] is not None:
            self.lines.append(traceback.format_exc())
        raise structlog.DropEvent


@contextmanager
def listening() -> Iterator[Spoken]:
    """Hear what is logged within the block."""
    spoken, root = Spoken(), logging.getLogger()
    level = root.level
    # The very list is changed: loggers that were made before hold on to it.
    processors = structlog.get_config()["processors"]
    before = list(processors)
    processors[:] = [spoken]
    structlog.configure(processors=processors)
    root.addHandler(spoken)
    root.setLevel(logging.DEBUG)
    try:
        yield spoken
    finally:
        root.removeHandler(spoken)
        root.setLevel(level)
        processors[:] = before
        structlog.configure(processors=processors)


@contextmanager
def keeping(secrets: Sequence[str]) -> Iterator[None]:
    """Fail the test that logs one of these within the block."""
    with listening() as spoken:
        yield
    assert not any(secret in spoken.text for secret in secrets), "a secret was logged"
