"""What the tables of the settings have in common: they are strict, and some types of their values."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Positive = Annotated[timedelta, Field(gt=timedelta(0))]
Delay = Annotated[timedelta, Field(ge=timedelta(0))]


def _named(text: str) -> str:
    if re.fullmatch(r"[\w.]+:[\w.]+|[a-z][a-z0-9_.-]*", text) is None:
        raise ValueError("must be package.module:name, or the name that a plugin gives it")
    return text


Named = Annotated[str, AfterValidator(_named)]
"""A Python object by its place, package.module:name, or by the name that an installed plugin gives it."""


class Section(BaseModel):
    """A table of the settings: unknown keys are refused, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)
