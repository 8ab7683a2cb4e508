"""What the extras read out of messages, whatever is in them: identities, and bytes as JSON values."""

from __future__ import annotations

import base64
import json

from pydantic import ConfigDict, Field

from . import Json
from .options import Options


class JsonIdentity(Options):
    """The identity is the text or whole number that an RFC 6901 pointer finds in the JSON body."""

    model_config = ConfigDict(populate_by_name=True)

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


def readable(value: bytes) -> Json:
    """Text, or `{"base64": …}` where the bytes are not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
