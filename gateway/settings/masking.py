"""What is secret, by its type or its name, and how it is masked."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, SecretStr

MASK = "***"
"""What stands for a secret."""

SECRET_NAME = re.compile(
    r"(?i)(^|[-_])(password|passphrase|secrets?|tokens?|credentials?|private_key|authorization|cookie|api_?key)([-_]|$)"
)


def holds_secret(value: object) -> bool:
    """Whether a secret is in it, at whatever depth."""
    match value:
        case SecretStr():
            return True
        case list() | tuple():
            return any(map(holds_secret, value))
        case dict():
            return any(SECRET_NAME.search(str(k)) or holds_secret(v) for k, v in value.items())
        case BaseModel():
            return holds_secret({key: getattr(value, key) for key in type(value).model_fields})
        case _:
            return False


def without_password(url: str, *, path: bool = True) -> str:
    """The URL with *** for its password, without its query, and without its path unless that is wanted."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    credentials, at, host = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    netloc = f"{user}{colon and ':' + MASK}{at}{host}"
    kept = parts.path if path or parts.path in ("", "/") else "/…"
    return urlunsplit(parts._replace(netloc=netloc, path=kept, query="", fragment=""))
