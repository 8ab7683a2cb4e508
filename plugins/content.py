"""What the extras read out of messages, whatever is in them: bytes as JSON values."""

from __future__ import annotations

import base64

from . import Json


def readable(value: bytes) -> Json:
    """Text, or `{"base64": …}` where the bytes are not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
