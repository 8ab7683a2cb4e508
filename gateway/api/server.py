"""The operations behind HTTP: each request is admitted, read strictly, carried out and answered as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any

import structlog
from aiohttp import web
from pydantic import BaseModel, ValidationError

from ...core.errors import BadMessage, HammerworkError
from ...core.ingest.decode import Decoder
from ...core.job import Json
from ...core.message import Message
from .admission import admit
from .operation import PREFIX, ApiContext, Operation, location_of
from .problems import Fault, Problem, Refused, invalid_body, invalid_parameters, problem_of
from .table import OPERATIONS

__all__ = ["ApiContext", "api_routes", "middlewares"]

log = structlog.get_logger(__name__)

LARGEST_BODY = 1024 * 1024
"""Bytes, as sent and again when it is unpacked."""

JSON_TYPES = ("application/json", "text/json")
ALWAYS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def api_routes(context: ApiContext) -> list[web.RouteDef]:
    """The routes of all operations, and the OpenAPI document at /api/v1/openapi.json."""
    routes = [
        web.route(operation.method, PREFIX + operation.path, _Endpoint(context, operation).answer)
        for operation in OPERATIONS
    ]
    return [*routes, web.get(f"{PREFIX}/openapi.json", _Document().answer)]


def middlewares(context: ApiContext) -> list[Any]:
    """What makes problem documents of the router's own refusals."""
    return [_unknown_paths]


@web.middleware
async def _unknown_paths(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as refusal:
        return Problem(
            status=405,
            code="method_not_allowed",
            detail=f"{request.method} is not for this path",
            headers={"Allow": refusal.headers["Allow"]},
        ).response()
    except web.HTTPNotFound:
        return Problem(
            status=404,
            code="unknown_path",
            detail="there is no such path",
            hint=f"{PREFIX}/openapi.json lists the API's; an HTTP bridge has the `path` of its settings",
        ).response()


class _Document:
    """Says nothing about this gateway but its version, so nobody is asked for a token."""

    async def answer(self, _request: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(_document))


@cache
def _document() -> dict[str, Json]:
    """Made when it is first asked for: it takes a tenth of a gateway's start, and few ask."""
    from .document import openapi

    return openapi(OPERATIONS)


class _Endpoint:
    """One operation for one request after another."""

    def __init__(self, context: ApiContext, operation: Operation[Any, Any, Any]) -> None:
        self._context = context
        self._operation = operation
        self._decoder = Decoder(max_bytes=LARGEST_BODY)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._carry_out(request)
        except Refused as refused:
            return refused.problem.response()
        except HammerworkError as error:
            problem = problem_of(error)
            if problem.status >= 500:
                log.warning("request failed", operation=self._operation.name, error=str(error))
            return problem.response()
        except web.HTTPException:
            raise
        except Exception:
            log.exception("request failed", operation=self._operation.name)
            return Problem(
                status=500, code="internal", detail="this is a fault of the gateway; its log says more"
            ).response()

    async def _carry_out(self, request: web.Request) -> web.Response:
        operation = self._operation
        admit(self._context, request, operation.permission)
        parameters = _parameters(operation, request)
        body = await self._body(request)
        reply: BaseModel = await operation.handler(self._context, parameters, body)
        headers = dict(ALWAYS)
        if operation.location is not None:
            headers["Location"] = PREFIX + operation.location.format_map(reply.model_dump(mode="json"))
        return web.Response(
            status=operation.status,
            text=reply.model_dump_json(),
            content_type="application/json",
            headers=headers,
        )

    async def _body(self, request: web.Request) -> BaseModel:
        model: type[BaseModel] = self._operation.body
        raw = await _read(request)
        if not raw:
            if self._operation.needs_body:
                raise BadMessage("empty_body", "this operation needs a JSON body")
            return model()
        if request.content_type not in JSON_TYPES and not request.content_type.endswith("+json"):
            raise BadMessage("unsupported_content_type", "send Content-Type: application/json")
        decoded = self._decoder.decode(
            Message(
                body=raw,
                content_type="application/json",
                content_encoding=request.headers.get("Content-Encoding"),
            )
        )
        try:
            # From the text: pydantic's strictness then still knows how JSON writes ids and times.
            return model.model_validate_json(decoded.text, strict=True)
        except ValidationError as error:
            raise Refused(invalid_body(error, model)) from error


async def _read(request: web.Request) -> bytes:
    """The body as it was sent; raises BadMessage as soon as it is too long."""
    chunks, size = [], 0
    async for chunk in request.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > LARGEST_BODY:
            raise BadMessage("too_large", f"the body is longer than {LARGEST_BODY} bytes")
    return b"".join(chunks)


def _parameters(operation: Operation[Any, Any, Any], request: web.Request) -> BaseModel:
    model: type[BaseModel] = operation.parameters
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name in given or (name in request.match_info):
            fault = Fault(parameter=name, message="is given twice")
            raise Refused(
                Problem(status=400, code="invalid_parameter", detail=f"{name} is given twice", errors=[fault])
            )
        given[name] = value
    try:
        return model.model_validate({**given, **request.match_info, **_headers(operation, request.headers)})
    except ValidationError as error:
        raise Refused(invalid_parameters(error, model)) from error


def _headers(operation: Operation[Any, Any, Any], headers: Mapping[str, str]) -> dict[str, str]:
    names = [found.alias or name for name, found in operation.parameters.model_fields.items()]
    return {
        name: headers[name] for name in names if name in headers and location_of(operation, name) == "header"
    }
