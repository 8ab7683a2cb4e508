"""Sinks of the shelf, each with one fault that an author might make: what the kit is there to find."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import Any

import structlog

from hammerwork.plugins import (
    DeliveryAttempt,
    DeliveryReport,
    Done,
    Guarantee,
    Outcome,
    Retry,
)

from .shelf import ShelfOptions, ShelfSink
from .spool import Link

log = structlog.get_logger(__name__)


class OpensOnce(ShelfSink):
    """Keeps a sign of its first life."""

    closed = False

    async def deliver(self, attempt: DeliveryAttempt) -> DeliveryReport:
        return DeliveryReport(outcome=Retry("closed")) if self.closed else await super().deliver(attempt)

    async def close(self) -> None:
        self.closed = True


class Talkative(ShelfSink):
    """Logs what it was made of, all of it."""

    async def open(self) -> None:
        log.info("shelf.opened", token=self._options.token.get_secret_value())


class Latin(ShelfSink):
    """Writes what an old encoding knows, and nothing else."""

    async def put(self, attempt: DeliveryAttempt) -> str:
        event = dict(attempt.cloud_event)
        event["data"] = {
            name: value.encode("latin-1", "replace").decode("latin-1") if isinstance(value, str) else value
            for name, value in event["data"].items()
        } | {"note": str(event["data"].get("note")).encode("ascii", "replace").decode()}
        return await super().put(replace(attempt, cloud_event=event))


class Renaming(ShelfSink):
    """Gives every try an identity of its own."""

    async def put(self, attempt: DeliveryAttempt) -> str:
        return await super().put(replace(attempt, event_id=secrets.token_hex(8)))


class Careless(ShelfSink):
    """Takes every answer for a yes."""

    def judge(self, answer: str) -> Outcome:
        return Done()


class Hopeful(ShelfSink):
    """Tries again what was refused for good."""

    def judge(self, answer: str) -> Outcome:
        return Done() if answer == "taken" else Retry(answer)


class Mixing(ShelfSink):
    """Keeps the latest answer for all deliveries that are under way."""

    latest = ""

    async def put(self, attempt: DeliveryAttempt) -> str:
        self.latest = await super().put(attempt)
        await asyncio.sleep(0.05)
        return self.latest


class Waiting(ShelfSink):
    """Waits for an answer for ever, also when it is closed."""

    async def deliver(self, attempt: DeliveryAttempt) -> DeliveryReport:
        return DeliveryReport(outcome=self.judge(await self.put(attempt)))


class Faithful(ShelfSink):
    """Connects once, and stays with that connection whatever becomes of it."""

    link: Link | None = None

    async def connect(self) -> Link:
        if self.link is None:
            self.link = await super().connect()
        return self.link

    async def put(self, attempt: DeliveryAttempt) -> str:
        link = await self.connect()
        return str(await link.ask(id=attempt.event_id, event=dict(attempt.cloud_event)))

    async def close(self) -> None:
        await super().close()
        link, self.link = self.link, None
        if link is not None:
            link.writer.close()


class Twice(ShelfSink):
    """Sends every event twice, to be sure."""

    async def put(self, attempt: DeliveryAttempt) -> str:
        await super().put(attempt)
        return await super().put(attempt)


class Detached(ShelfSink):
    """Says Done at once, and sends what is behind the first ten when it finds the time."""

    taken = 0

    async def deliver(self, attempt: DeliveryAttempt) -> DeliveryReport:
        self.taken += 1
        if self.taken <= 10:
            return await super().deliver(attempt)
        self._tasks.add(asyncio.create_task(self._put_later(attempt)))
        return DeliveryReport(outcome=Done())

    async def _put_later(self, attempt: DeliveryAttempt) -> str:
        await asyncio.sleep(60)
        return await self.put(attempt)


class Boasting(ShelfSink):
    """Promises more than there is."""

    async def guarantee(self) -> Guarantee:
        return Guarantee("exactly-once", "we are good")


class Showing(ShelfSink):
    """Shows what it was made of."""

    def __repr__(self) -> str:
        return f"Showing({self.name!r}, {self._options.token.get_secret_value()!r})"


class Blaming(ShelfSink):
    """Says in its outcomes what it has tried, all of it."""

    async def deliver(self, attempt: DeliveryAttempt) -> DeliveryReport:
        report = await super().deliver(attempt)
        return replace(report, response=f"with {self._options.token.get_secret_value()}")


class UntypedOptions(ShelfOptions):
    """Says of its tags nothing, so that a variable's text stays text."""

    tags: Any = ()


class Untyped(ShelfSink):
    """Has options that a file and a variable set differently."""

    Options = UntypedOptions
