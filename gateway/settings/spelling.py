"""How values are spelled in variables, in files and on a terminal, and what text in a variable stands for."""

from __future__ import annotations

import json
from datetime import timedelta
from enum import Enum
from typing import Any

from pydantic import BaseModel, ByteSize, SecretStr

from ..spans import span_text
from .masking import MASK, SECRET_NAME, without_password


def read_list(text: str) -> object:
    """A variable's list: JSON, or words between commas."""
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return [word.strip() for word in text.split(",") if word.strip()]


def json_table(text: str) -> dict[str, object] | None:
    """The JSON object that a variable holds, or None when it holds something else."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def shown(value: object, *, secret: bool = False) -> str:
    """A value fit for a terminal: secrets masked, passwords cut out of URLs, long text cut."""
    match value:
        case None:
            return "not set"
        case SecretStr():
            text = value.get_secret_value()
            # Of a secret URL the host helps; its path may be a credential of its own.
            return without_password(text, path=False) if "://" in text else MASK if text else "empty"
        case _ if secret:
            return MASK
        case bool():
            return str(value).lower()
        case ByteSize():
            return value.human_readable()
        case timedelta():
            return span_text(value)
        case str() if "://" in value:
            return without_password(value)
        case str():
            return repr(str(value)) if len(value) <= 80 else f"{value[:80]!r}…"
        case list() | tuple() | set() | frozenset():
            return "[" + ", ".join(shown(member) for member in value) + "]"
        case dict():
            members = (
                f"{k}: {shown(v, secret=SECRET_NAME.search(str(k)) is not None)}" for k, v in value.items()
            )
            return "{" + ", ".join(members) + "}"
        case _:
            return str(value)[:200]


def as_variable(value: object) -> str:
    """A value as a variable would be written; secrets are masked."""
    match value:
        case None:
            return ""
        case SecretStr():
            return MASK if value.get_secret_value() else ""
        case bool():
            return str(value).lower()
        case timedelta():
            return span_text(value)
        case ByteSize():
            return size_text(value)
        case Enum():
            return str(value.value)
        case list() | tuple() | frozenset() | set():
            members = [as_variable(member) for member in value]
            if any(isinstance(member, BaseModel) for member in value) or any("," in m for m in members):
                return json.dumps([as_json(member) for member in value])
            return ",".join(members)
        case dict() | BaseModel():
            return json.dumps(as_json(value))
        case _:
            return str(value)


def as_json(value: object) -> Any:
    """A value as a file or a JSON variable would give it; secrets are masked."""
    match value:
        case BaseModel():
            return {
                found.alias or key: as_json(getattr(value, key))
                for key, found in type(value).model_fields.items()
                if getattr(value, key) is not None
            }
        case dict():
            return {key: as_json(member) for key, member in value.items()}
        case list() | tuple():
            return [as_json(member) for member in value]
        case str() | bool() | int() | float() if not isinstance(value, ByteSize | Enum):
            return value
        case _:
            return as_variable(value)


def size_text(size: int) -> str:
    """The size in its largest whole unit."""
    for unit, count in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size and size % count == 0:
            return f"{size // count}{unit}"
    return str(int(size))
