"""The gateway's one HTTP server: HTTP bridges, REST API, metrics and health; and who may reach it."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from ..core.errors import Misconfigured
from ..core.postgres.database import Database
from ..core.queue import Queue
from .api.server import ApiContext, api_routes, middlewares
from .health import Component, Health
from .metrics import QueueSurvey
from .parts import Ingest, Parts, build_parts
from .settings import Settings
from .settings.process import HttpSettings
from .settings.variables import variable_for

STOP_WITHIN = 5.0
"""Seconds that open requests get when the server stops; bridges have answered theirs by then."""

A_SECRET = "$(openssl rand -hex 32)"
LOOPBACK = "HAMMERWORK_HTTP__HOST=127.0.0.1"

FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP")


class Served(Protocol):
    """What the server shows of the gateway."""

    settings: Settings
    parts: Parts
    queue: Queue
    database: Database
    health: Health
    survey: QueueSurvey
    registry: CollectorRegistry


@runtime_checkable
class HttpServed(Protocol):
    """A bridge that takes its messages from requests to the gateway's own server."""

    @property
    def authenticated(self) -> bool:
        """Whether senders must prove who they are."""
        ...

    def routes(self) -> list[web.RouteDef]: ...


def admitted_parts(settings: Settings) -> Parts:
    """The parts that the settings describe. Raises Misconfigured for what cannot work, and for open doors."""
    parts = build_parts(settings)
    _refuse_open_doors(settings, parts.ingests.values())
    return parts


def _refuse_open_doors(settings: Settings, ingests: Iterable[Ingest]) -> None:
    """Raise Misconfigured when strangers could reach the API, or a bridge that asks nobody who they are."""
    http = settings.http
    if is_loopback(http.host):
        return
    if http.token is None:
        raise Misconfigured(
            f"http.host is {http.host}, which others can reach, and no token guards the API",
            hint=f"set one of\n  HAMMERWORK_HTTP__TOKEN={A_SECRET}\n  {LOOPBACK}",
        )
    for ingest in ingests:
        if isinstance(ingest.bridge, HttpServed) and not ingest.bridge.authenticated:
            token = variable_for(("bridges", ingest.name, "token"))
            raise Misconfigured(
                f"http.host is {http.host}, which others can reach, and anybody could send to the bridge"
                f" {ingest.name!r}",
                hint=f"set one of\n  {token}={A_SECRET}\n  {LOOPBACK}",
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there. Other names than localhost count as
    reachable, because what they resolve to may change."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def build_http(gateway: Served) -> web.AppRunner:
    """The server with all its routes, not listening yet."""
    context = _api_context(gateway)
    app = web.Application(middlewares=middlewares(context))
    app.router.add_routes(api_routes(context))
    app.router.add_get("/livez", _alive)
    app.router.add_get("/readyz", _Readiness(gateway).answer)
    app.router.add_get("/metrics", _Metrics(gateway).answer)
    for ingest in gateway.parts.ingests.values():
        if isinstance(ingest.bridge, HttpServed):
            app.router.add_routes(ingest.bridge.routes())
    # Bridges verify signatures over the bytes as they were sent, and bound their unpacking themselves.
    return web.AppRunner(
        app, access_log=None, handle_signals=False, shutdown_timeout=STOP_WITHIN, auto_decompress=False
    )


def _api_context(gateway: Served) -> ApiContext:
    http = gateway.settings.http
    return ApiContext(
        queue=gateway.queue,
        database=gateway.database,
        replayers={name: ingest.preparation() for name, ingest in gateway.parts.ingests.items()},
        subscriptions={name: outlet.subscription for name, outlet in gateway.parts.outlets.items()},
        token=http.token,
        read_token=http.read_token,
        loopback=is_loopback(http.host),
    )


async def listen(runner: web.AppRunner, settings: HttpSettings) -> str:
    """Open the port; the address as a URL. Raises Misconfigured when it cannot be had."""
    await runner.setup()
    site = web.TCPSite(runner, settings.host, settings.port)
    try:
        await site.start()
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}",
            hint="set HAMMERWORK_HTTP__PORT to a free port, or to 0 for any",
        ) from error
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _alive(_request: web.Request) -> web.Response:
    """The event loop turns; anything more would restart a gateway for what a restart cannot mend."""
    return web.json_response({"alive": True})


class _Readiness:
    """200 while every required component runs, else 503. Reasons may name hosts and queues, so only those
    who hold a token or sit on this machine read them."""

    def __init__(self, gateway: Served) -> None:
        self._gateway = gateway

    async def answer(self, request: web.Request) -> web.Response:
        components = await self._gateway.health.components()
        trusted = may_see_reasons(request, self._gateway.settings.http)
        ready = not any(component.in_the_way for component in components)
        body = {
            "ready": ready,
            "components": {component.name: _shown(component, trusted) for component in components},
        }
        return web.json_response(body, status=200 if ready else 503)


class _Metrics:
    def __init__(self, gateway: Served) -> None:
        self._gateway = gateway

    async def answer(self, _request: web.Request) -> web.Response:
        await self._gateway.survey.refresh()
        body: bytes = generate_latest(self._gateway.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def may_see_reasons(request: web.Request, settings: HttpSettings) -> bool:
    """Whether the caller holds a token, or is on this machine and not a proxy for somebody else."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    for token in (settings.token, settings.read_token):
        if token is not None and scheme.lower() == "bearer":
            secret = token.get_secret_value().encode()
            if hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), secret):
                return True
    if any(header in request.headers for header in FORWARDED):
        return False
    return request.remote is not None and is_loopback(request.remote)


def _shown(component: Component, trusted: bool) -> dict[str, object]:
    shown: dict[str, object] = {"state": component.state, "required": component.required}
    if trusted and component.reason:
        shown["reason"] = component.reason
    return shown
