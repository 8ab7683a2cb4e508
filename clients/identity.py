"""Identities in a message's content: which header or field of the body has it, and what a JSON value says."""

from __future__ import annotations

import json

from pydantic import Field

from ..core.job import Json
from .options import Options


class HeaderIdentity(Options):
    """The identity is the text or whole number in this header."""

    header: str = Field(min_length=1)


class JsonIdentity(Options):
    """The identity is the text or whole number that an RFC 6901 pointer finds in the JSON body."""

    pointer: str = Field(alias="json", pattern="^/")

    def of(self, body: bytes) -> str | None:
        return text_identity(json_pointer(body, self.pointer))


def text_identity(value: Json) -> str | None:
    """An identity from a JSON value: text that is not empty, or a whole number; anything else is none."""
    match value:
        case bool():
            return None
        case int():
            return str(value)
        case str() if value:
            return value
        case _:
            return None


def json_pointer(body: bytes, pointer: str) -> Json:
    """What an RFC 6901 pointer points at in a JSON body; None where there is no such thing."""
    try:
        here: Json = json.loads(body)
        for part in pointer.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            here = here[int(name)] if isinstance(here, list) else here[name]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return None
    return here
