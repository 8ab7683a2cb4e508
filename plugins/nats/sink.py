"""NatsSink: batches of events published to a JetStream stream, those of a job one after the other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, assert_never
from uuid import UUID

from .. import (
    AT_LEAST_ONCE,
    BadMessage,
    Dead,
    Disconnected,
    Done,
    Guarantee,
    LoggedEvent,
    Misconfigured,
    Outcome,
    Retry,
    SinkCapabilities,
    Snooze,
)
from .bridge import link_type, server_address
from .options import Body, NatsSinkOptions
from .publication import Publication

if TYPE_CHECKING:
    from .link import NatsLink

SEND_WITHIN = 10.0
"""Seconds after which a send begins with no more events; what waits comes again in the next one."""
WAITING = Snooze(timedelta(0))


class NatsSink:
    """Implements `core.event.LogSink` for one subject. Each event is published under its id, so that the
    stream drops repetitions within its duplicate window.

    A stream may refuse one message and take the next, so the first events of all jobs are published together,
    then, of those jobs whose first one was taken, the second, and so on. Raises Misconfigured for a URL or
    subject that cannot be used, and MissingExtra where the client is not installed.
    """

    Options = NatsSinkOptions
    capabilities = SinkCapabilities(batches=True, order="key", refuses=True, largest=1024 * 1024)

    def __init__(self, name: str, options: NatsSinkOptions) -> None:
        self.name = name
        self._options = options
        self._link_type = link_type("the NATS sink")
        self._address = server_address(options)
        self._link: NatsLink | None = None
        _subject(options.subject, type="", queue="")

    async def open(self) -> str | None:
        await self.close()
        self._link = await self._connected()
        return None

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        if self._link is None:
            raise Disconnected("the sink is not open")
        outcomes: list[Outcome] = [WAITING] * len(events)
        held = set[UUID | None]()
        fault: Disconnected | Misconfigured | None = None
        until = asyncio.get_running_loop().time() + SEND_WITHIN
        for wave in _waves(events):
            places = [place for place in wave if events[place].job_id not in held]
            if not places or asyncio.get_running_loop().time() > until:
                break
            publications = [self._publication(events[place]) for place in places]
            answers = await self._link.publish(publications, within=self._options.timeout.total_seconds())
            for place, answer in zip(places, answers, strict=True):
                match answer:
                    case None:
                        outcomes[place] = Done()
                    case BadMessage():
                        outcomes[place] = Dead(str(answer))
                    case Disconnected() | Misconfigured():
                        fault = fault or answer
                        outcomes[place] = Retry(str(answer))
                        held.add(events[place].job_id)
                    case _:
                        assert_never(answer)
        if fault is not None and all(isinstance(outcome, Retry | Snooze) for outcome in outcomes):
            raise fault
        return outcomes

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def guarantee(self) -> Guarantee:
        link = await self._connected()
        try:
            if self._options.stream is not None:
                await link.ask(link.client.jsm().stream_info(self._options.stream))
        finally:
            await link.close()
        because = (
            "an event whose answer was lost is published again under its id (Nats-Msg-Id), which the stream"
            " drops within its duplicate window"
        )
        return Guarantee(AT_LEAST_ONCE, because)

    async def _connected(self) -> NatsLink:
        return await self._link_type.connect(self._address, self._options, name=self.name)

    def _publication(self, event: LoggedEvent) -> Publication:
        options = self._options
        headers, body = _content(event, options.body)
        headers["Nats-Msg-Id"] = str(event.id)
        if options.stream is not None:
            headers["Nats-Expected-Stream"] = options.stream
        subject = _subject(options.subject, type=event.type, queue=event.queue or "none")
        return Publication(subject, headers, body)


def _waves(events: Sequence[LoggedEvent]) -> Iterator[list[int]]:
    """The places of the first event of every job, then of the second, and so on."""
    seen = Counter[UUID]()
    waves: list[list[int]] = []
    for place, event in enumerate(events):
        line = event.job_id or event.id
        if seen[line] == len(waves):
            waves.append([])
        waves[seen[line]].append(place)
        seen[line] += 1
    yield from waves


def _content(event: LoggedEvent, form: Body) -> tuple[dict[str, str], bytes]:
    match form:
        case "cloudevents":
            return {"Content-Type": "application/cloudevents+json"}, event.cloud_event().encode()
        case "cloudevents-binary":
            attributes = {f"ce-{name}": value for name, value in event.attributes().items()}
            return {"Content-Type": "application/json", **attributes}, event.body().encode()
        case other:
            assert_never(other)


def _subject(template: str, **named: str) -> str:
    """The template with what it names of the event. Raises Misconfigured where it names something else."""
    try:
        return template.format(**named)
    except (KeyError, ValueError, IndexError) as error:
        raise Misconfigured(
            f"the subject {template!r} cannot be filled in", hint="it may name {type} and {queue}"
        ) from error
