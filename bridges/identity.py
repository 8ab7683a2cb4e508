"""Identities in a message's content: what a JSON value says, and where in a body it stands."""

from __future__ import annotations

import json

from ..core.job import Json


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
