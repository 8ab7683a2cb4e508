"""NatsSink: events published to a JetStream stream."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, assert_never

from .. import (
    Dead,
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
from .options import Body, NatsSinkOptions

if TYPE_CHECKING:
    from .link import NatsLink

HELD = timedelta(minutes=1)
"""How long a delivery waits that a wrong setting is in the way of."""
PREFIX = "dev.hammerwork."


class NatsSink:
    """Implements `core.event.Sink` for one subject. Each event is published under its id, so that the stream
    drops repetitions within its duplicate window.

    Raises Misconfigured for a URL or subject that cannot be used, and MissingExtra where the client is not
    installed.
    """

    Options = NatsSinkOptions
    capabilities = SinkCapabilities(largest=1024 * 1024)

    def __init__(self, name: str, options: NatsSinkOptions) -> None:
        self.name = name
        self._options = options
        self._link_type = link_type("the NATS sink")
        self._address = server_address(options)
        self._link: NatsLink | None = None
        self._connecting = asyncio.Lock()
        self._opened = False
        _subject(options.subject, {})

    async def open(self) -> None:
        """Nothing is connected before the first delivery, which also connects again what was lost."""
        self._opened = True

    async def deliver(self, attempt: DeliveryAttempt) -> DeliveryReport:
        """One message, taken when the stream says so. Never raises for what server or network do."""
        if not self._opened:
            raise Unavailable(f"the sink {self.name} is not open")
        started = time.monotonic()
        try:
            link = await self._alive()
            outcome, error = await self._publish(link, attempt)
        except Misconfigured as fault:
            outcome, error = Snooze(HELD), f"misconfigured: {fault}"
        except Disconnected as fault:
            outcome, error = Retry(str(fault)), "unavailable"
        return DeliveryReport(outcome=outcome, error=error, duration=time.monotonic() - started)

    async def close(self) -> None:
        self._opened = False
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def guarantee(self) -> Guarantee:
        options = self._options
        link = await self._link_type.connect(self._address, options, name=self.name)
        try:
            if options.stream is not None:
                await link.ask(link.client.jsm().stream_info(options.stream))
        finally:
            await link.close()
        because = (
            "an event whose answer was lost is published again under its id (Nats-Msg-Id), which the stream"
            " drops within its duplicate window"
        )
        return Guarantee("at-least-once", because)

    async def _alive(self) -> NatsLink:
        async with self._connecting:
            if self._link is None or self._link.lost is not None:
                if self._link is not None:
                    await self._link.close()
                self._link = await self._link_type.connect(self._address, self._options, name=self.name)
            return self._link

    async def _publish(self, link: NatsLink, attempt: DeliveryAttempt) -> tuple[Outcome, str | None]:
        options, event = self._options, attempt.cloud_event
        headers, body = _content(event, options.body)
        if len(body) > (most := link.client.max_payload):
            return Dead(f"too_large: {len(body)} bytes, the server takes {most}"), "too_large"
        headers["Nats-Msg-Id"] = attempt.event_id
        subject = _subject(options.subject, event)
        timeout, stream = options.timeout.total_seconds(), options.stream
        publishing = link.client.jetstream().publish(
            subject, body, timeout=timeout, stream=stream, headers=headers
        )
        await link.ask(publishing)
        return Done(), None


def _content(event: Mapping[str, Json], form: Body) -> tuple[dict[str, str], bytes]:
    match form:
        case "cloudevents":
            return {"Content-Type": "application/cloudevents+json"}, _bytes(event)
        case "cloudevents-binary":
            attributes = {f"ce-{k}": str(v) for k, v in event.items() if k not in ("data", "datacontenttype")}
            kind = str(event.get("datacontenttype", "application/json"))
            return {"Content-Type": kind, **attributes}, _bytes(event.get("data"))
        case other:
            assert_never(other)


def _bytes(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _subject(template: str, event: Mapping[str, Json]) -> str:
    """The template with what it names of the event. Raises Misconfigured where it names something else."""
    data = event.get("data")
    queue = data.get("queue") if isinstance(data, dict) else None
    try:
        return template.format(type=str(event.get("type", "")).removeprefix(PREFIX), queue=queue or "none")
    except (KeyError, ValueError, IndexError) as error:
        raise Misconfigured(
            f"the subject {template!r} cannot be filled in", hint="it may name {type} and {queue}"
        ) from error
