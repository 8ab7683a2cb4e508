"""A broker of one process as the harnesses of the kit want it: reached through a proxy, to be broken."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from hammerwork.plugins import Json
from hammerwork.plugins.conformance.harness import Harness

from ..services import free_port
from ..services.broker import PASSWORD, USER, BrokerService
from ..services.proxy import FaultProxy


def url_at(service: BrokerService, port: int) -> str:
    """The server's URL, with a login, at another port of this machine."""
    scheme, _, _ = service.url.partition("://")
    return f"{scheme}://{USER}:{PASSWORD}@127.0.0.1:{port}"


@dataclass(kw_only=True)
class Served(Harness):
    """What a bridge's and a sink's harness have in common."""

    service: BrokerService
    proxy: FaultProxy

    async def restart(self) -> None:
        await asyncio.to_thread(self.service.restart)

    async def cut(self) -> None:
        self.proxy.cut()

    async def hang(self) -> None:
        self.proxy.blackhole()

    async def unreachable(self) -> Mapping[str, Json]:
        return {**self.options, "url": url_at(self.service, free_port())}
