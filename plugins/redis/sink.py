"""RedisSink: batches of events as entries of a Redis stream, in transactions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from .. import (
    AT_LEAST_ONCE,
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
from .options import RedisSinkOptions

if TYPE_CHECKING:
    from .link import Command, RedisLink

MOST_BYTES = 4 * 1024 * 1024
"""About how much one transaction holds: the server keeps all of it in memory until it is complete."""
WAITING = Snooze(timedelta(0))


class RedisSink:
    """Implements `core.event.LogSink` for one stream: an entry an event, the attributes of its CloudEvent as
    fields and its `data` as JSON.

    Entries are added in transactions, of which the server takes all or nothing; behind one that it did not
    take nothing is sent. So the stream has the events in their order. At least once: what had no answer is
    added again, under the same `id`. Raises Misconfigured for a URL that cannot be used, and MissingExtra
    where the client is not installed.
    """

    Options = RedisSinkOptions
    capabilities = SinkCapabilities(batches=True, order="key")

    def __init__(self, name: str, options: RedisSinkOptions) -> None:
        self.name = name
        self._options = options
        self._link_type = link_type("the Redis sink")
        self._address = server_address(options)
        self._link: RedisLink | None = None

    async def open(self) -> str | None:
        await self.close()
        link = self._new_link()
        try:
            await self._look(link)
        except BaseException:
            await link.close()
            raise
        self._link = link
        return None

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        if self._link is None:
            raise Disconnected("the sink is not open")
        outcomes: list[Outcome] = []
        for commands in self._transactions(events):
            try:
                await self._link.ask_all(commands, together=True)
            except (Disconnected, Misconfigured) as error:
                if not outcomes:
                    raise
                outcomes += [Retry(str(error))] * len(commands)
                break
            outcomes += [Done()] * len(commands)
        return outcomes + [WAITING] * (len(events) - len(outcomes))

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def guarantee(self) -> Guarantee:
        link = self._new_link()
        try:
            await self._look(link)
        finally:
            await link.close()
        because = "events whose answer was lost are added again; readers drop the repetitions by their ids"
        return Guarantee(AT_LEAST_ONCE, because)

    async def _look(self, link: RedisLink) -> None:
        kind = (await link.ask("TYPE", self._options.stream)).decode()
        if kind not in ("none", "stream"):
            raise Misconfigured(f"{self._options.stream!r} is a {kind}", hint="name a stream")

    def _transactions(self, events: Sequence[LoggedEvent]) -> Iterator[list[Command]]:
        """The events as commands, cut where a transaction has become large."""
        length = self._options.max_length
        limit: Command = () if length is None else ("MAXLEN", "~", length)
        commands: list[Command] = []
        size = 0
        for event in events:
            commands.append(("XADD", self._options.stream, *limit, "*", *_fields(event)))
            size += len(event.text)
            if size >= MOST_BYTES:
                yield commands
                commands, size = [], 0
        if commands:
            yield commands

    def _new_link(self) -> RedisLink:
        options = self._options
        return self._link_type.to(self._address, options, name=self.name, patience=options.timeout)


def _fields(event: LoggedEvent) -> Command:
    """Names and values in turn."""
    fields = {**event.attributes(), "datacontenttype": "application/json", "data": event.body()}
    return tuple(part for field in fields.items() for part in field)
