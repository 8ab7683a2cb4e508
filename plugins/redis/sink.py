"""RedisSink: events as entries of a Redis stream."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from .. import (
    DeliveryAttempt,
    DeliveryReport,
    Disconnected,
    Done,
    Guarantee,
    Json,
    Misconfigured,
    Outcome,
    Retry,
    SinkCapabilities,
    Snooze,
    Unavailable,
)
from .bridge import link_type, server_address
from .options import RedisSinkOptions

if TYPE_CHECKING:
    from .link import Command, RedisLink

HELD = timedelta(minutes=1)
"""How long a delivery waits that a wrong setting is in the way of."""


class RedisSink:
    """Implements `core.event.Sink` for one stream: an entry an event, the attributes of its CloudEvent as
    fields and its `data` as JSON.

    At least once: an event whose answer was lost is added again, under the same `id`. Raises Misconfigured
    for a URL that cannot be used, and MissingExtra where the client is not installed.
    """

    Options = RedisSinkOptions
    capabilities = SinkCapabilities()

    def __init__(self, name: str, options: RedisSinkOptions) -> None:
        self.name = name
        self._options = options
        self._link_type = link_type("the Redis sink")
        self._address = server_address(options)
        self._link: RedisLink | None = None

    async def open(self) -> None:
        """Nothing is connected before the first delivery, and every delivery may connect again."""
        if self._link is None:
            self._link = self._new_link()

    async def deliver(self, attempt: DeliveryAttempt) -> DeliveryReport:
        """One XADD. Never raises for what the server or the network does."""
        if self._link is None:
            raise Unavailable(f"the sink {self.name} is not open")
        started = time.monotonic()
        outcome, error = await self._add(self._link, attempt.cloud_event)
        return DeliveryReport(outcome=outcome, error=error, duration=time.monotonic() - started)

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def guarantee(self) -> Guarantee:
        link = self._new_link()
        try:
            kind = (await link.ask("TYPE", self._options.stream)).decode()
        finally:
            await link.close()
        if kind not in ("none", "stream"):
            raise Misconfigured(f"{self._options.stream!r} is a {kind}", hint="name a stream")
        because = "an event whose answer was lost is added again; readers drop the repetition by its id"
        return Guarantee("at-least-once", because)

    async def _add(self, link: RedisLink, event: Mapping[str, Json]) -> tuple[Outcome, str | None]:
        length = self._options.max_length
        limit: Command = () if length is None else ("MAXLEN", "~", length)
        try:
            await link.ask("XADD", self._options.stream, *limit, "*", *_fields(event))
        except Misconfigured as error:
            return Snooze(HELD), f"misconfigured: {error}"
        except Disconnected as error:
            return Retry(str(error)), "unavailable"
        return Done(), None

    def _new_link(self) -> RedisLink:
        options = self._options
        return self._link_type.to(self._address, options, name=self.name, patience=options.timeout)


def _fields(event: Mapping[str, Json]) -> Command:
    """Names and values in turn; text as it is, anything else as JSON."""
    flat: list[str] = []
    for name, value in event.items():
        flat += [name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]
    return tuple(flat)
