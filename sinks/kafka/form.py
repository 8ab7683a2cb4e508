"""What a record looks like, by the options: one of the formats of every log, or Avro with its registry."""

from __future__ import annotations

from ...clients.schemas.registry import Registry
from ...core.errors import MissingExtra
from ..formats import FORMATS, Format
from .options import KafkaSinkOptions


def format_of(options: KafkaSinkOptions) -> Format:
    """Connects to nothing. Raises Misconfigured for TLS files that cannot be used, and MissingExtra."""
    if options.format != "avro":
        return FORMATS[options.format]()
    try:
        from ...clients.schemas.encoding import EventEncoder, subject_of
    except ModuleNotFoundError as error:
        raise MissingExtra("the format 'avro'", "schema") from error
    assert options.registry is not None
    subject = options.subject or subject_of(options.fixed_topic)
    return EventEncoder(Registry(options.registry), subject, auto_register=options.auto_register)
