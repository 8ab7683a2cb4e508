"""What went wrong, as RFC 9457 problem documents; the one place where the core's errors become statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from http import HTTPStatus

import asyncpg
from aiohttp import web
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from ...core.errors import (
    BadMessage,
    HammerworkError,
    Misconfigured,
    NotFound,
    ResultExpired,
    StateConflict,
    Unavailable,
)
from ...core.job import JobState
from ..settings.faults import TABLE_WANTED, wanted
from ..settings.shape import keys_of, shape_of
from .shapes import NAME_PATTERN, NO_NUL_PATTERN

RETRY_AFTER = "2"
"""Seconds: Postgres is back after a restart or a promotion in a few of these."""

PATTERNS = {
    NAME_PATTERN: "must be 1 to 63 of a-z 0-9 _ . - and begin with a letter",
    NO_NUL_PATTERN: "must not contain NUL",
}
"""Regular expressions, in words."""

BAD_MESSAGE_STATUS = {"too_large": 413, "unsupported_content_type": 415}


class Fault(BaseModel):
    """One thing that is wrong with a request: in its body (a JSON pointer) or in a parameter."""

    pointer: str | None = None
    parameter: str | None = None
    message: str


class ProblemReply(BaseModel):
    """application/problem+json."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(description="stable; programs compare this")
    hint: str | None = Field(None, description="what to do about it")
    state: JobState | None = Field(None, description="of the job, where its state forbids the act")
    errors: list[Fault] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A refusal before it is written; `headers` go with it."""

    status: int
    code: str
    detail: str
    hint: str = ""
    state: JobState | None = None
    errors: Sequence[Fault] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        reply = ProblemReply(
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            code=self.code,
            hint=self.hint or None,
            state=self.state,
            errors=list(self.errors) or None,
        )
        return web.Response(
            status=self.status,
            text=reply.model_dump_json(exclude_none=True),
            content_type="application/problem+json",
            headers={"Cache-Control": "no-store", **self.headers},
        )


class Refused(Exception):
    """Ends a request with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def problem_of(error: HammerworkError) -> Problem:
    """The problem that an error of the core is to a caller."""
    match error:
        case BadMessage():
            status = BAD_MESSAGE_STATUS.get(error.reason, 422)
            return Problem(status=status, code=error.reason, detail=error.detail or error.reason)
        case NotFound():
            return Problem(status=404, code="not_found", detail=str(error))
        case StateConflict():
            return Problem(status=409, code="state_conflict", detail=str(error))
        case ResultExpired():
            return Problem(status=410, code="result_expired", detail=str(error))
        case Misconfigured(__cause__=asyncpg.DataError()):
            return Problem(status=422, code="invalid", detail=str(error), hint=error.hint)
        case Unavailable() | Misconfigured(__cause__=asyncpg.PostgresError()):
            return Problem(
                status=503,
                code="unavailable",
                detail=str(error),
                hint=getattr(error, "hint", "") or "send the same request again",
                headers={"Retry-After": RETRY_AFTER},
            )
        case Misconfigured():
            return Problem(status=422, code="invalid", detail=str(error), hint=error.hint)
        case _:
            return Problem(status=500, code="internal", detail=str(error))


def invalid_body(error: ValidationError, model: type[BaseModel]) -> Problem:
    """What is wrong with a body, field by field."""
    faults = [
        Fault(
            pointer="#" + "".join(f"/{_escaped(part)}" for part in details["loc"]),
            message=_said(details, model),
        )
        for details in error.errors(include_url=False, include_input=False)
    ]
    return Problem(status=422, code="invalid", detail=_summary(faults), errors=faults)


def invalid_parameters(error: ValidationError, model: type[BaseModel]) -> Problem:
    """What is wrong with the parameters of a request."""
    faults = [
        Fault(parameter=".".join(map(str, details["loc"])) or None, message=_said(details, model))
        for details in error.errors(include_url=False, include_input=False)
    ]
    return Problem(status=400, code="invalid_parameter", detail=_summary(faults), errors=faults)


def _summary(faults: Sequence[Fault]) -> str:
    first = faults[0]
    where = first.pointer or first.parameter
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"{where}: {first.message}{more}" if where else f"{first.message}{more}"


def _escaped(part: int | str) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def _said(details: ErrorDetails, model: type[BaseModel]) -> str:
    match details["type"]:
        case "extra_forbidden":
            return _unknown(str(details["loc"][-1]), _fields_at(model, details["loc"][:-1]))
        case "missing":
            return "is missing"
        case "string_pattern_mismatch" if (pattern := (details.get("ctx") or {})["pattern"]) in PATTERNS:
            return PATTERNS[pattern]
        case kind if kind in TABLE_WANTED:
            return "must be an object"
        case _:
            return wanted(details)


def _unknown(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1)
    if close:
        return f"is unknown; did you mean {close[0]!r}?"
    return f"is unknown; known are {', '.join(sorted(known))}" if known else "is unknown; there are none"


def _fields_at(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The names of the fields of the model that lies at a place of a body."""
    for part in place:
        shape = shape_of(keys_of(model).get(str(part)) if isinstance(part, str) else model)
        inner = shape.models or (shape_of(shape.item).models if shape.item is not None else ())
        if inner:
            model = inner[0]
    return list(keys_of(model))
