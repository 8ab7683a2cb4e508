"""Who may call the API: a bearer token; or, without one, programs of this machine and no web page."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import SecretStr

from .operation import ApiContext
from .problems import Problem, Refused

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP")
SAME_SITE = frozenset({"same-origin", "none"})
READ = ":read"


def admit(context: ApiContext, request: web.Request, permission: str) -> None:
    """Let a request through, or raise Refused."""
    if context.token is None:
        _refuse_strangers(request)
        return
    given = _bearer(request)
    if given is not None and _same(context.token, given):
        return
    if given is not None and context.read_token is not None and _same(context.read_token, given):
        if permission.endswith(READ):
            return
        raise Refused(
            Problem(status=403, code="forbidden", detail=f"this token lacks the permission {permission}")
        )
    raise Refused(_unauthorized(given))


def _bearer(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _same(token: SecretStr, given: str) -> bool:
    return hmac.compare_digest(token.get_secret_value().encode(), given.encode("utf-8", "surrogateescape"))


def _unauthorized(given: str | None) -> Problem:
    challenge = 'Bearer realm="hammerwork"'
    if given is None:
        detail = "this API needs a token"
    else:
        detail, challenge = "the token is not known here", f'{challenge}, error="invalid_token"'
    return Problem(
        status=401,
        code="unauthorized",
        detail=detail,
        hint="send the header `Authorization: Bearer …` with the gateway's http.token",
        headers={"WWW-Authenticate": challenge},
    )


def _refuse_strangers(request: web.Request) -> None:
    """Without a token, a web page in a local browser must reach nothing: neither by a cross-site request
    nor by a name that it has made to resolve to this machine (DNS rebinding)."""
    if not is_local(request.host):
        raise Refused(
            Problem(
                status=403,
                code="unknown_host",
                detail="without a token this API answers to localhost only",
                hint="call it as http://localhost:…, or set http.token",
            )
        )
    if any(name in request.headers for name in FORWARDED):
        raise Refused(
            Problem(
                status=403,
                code="forwarded",
                detail="without a token this API serves no proxy",
                hint="set http.token and send it",
            )
        )
    site = request.headers.get("Sec-Fetch-Site", "none")
    origin = request.headers.get("Origin")
    if site not in SAME_SITE or (origin is not None and urlsplit(origin).netloc != request.host):
        raise Refused(
            Problem(
                status=403,
                code="cross_site",
                detail="without a token this API answers to no other web site",
                hint="set http.token and send it",
            )
        )


def is_local(host: str) -> bool:
    """Whether a Host header names this machine."""
    try:
        return urlsplit(f"//{host}").hostname in LOCAL_HOSTS
    except ValueError:
        return False
