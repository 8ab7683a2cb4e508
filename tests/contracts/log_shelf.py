"""The shelf as a log: a sink that puts batches onto it, one that keeps its position there, and others."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import structlog

from hammerwork.plugins import (
    AT_LEAST_ONCE,
    EXACTLY_ONCE,
    Dead,
    Disconnected,
    Done,
    Guarantee,
    Json,
    LoggedEvent,
    LogSink,
    Outcome,
    Retry,
    SinkCapabilities,
    Snooze,
)

from .shelf import LARGEST, Shelf, ShelfOptions
from .spool import LIMIT, Link

log = structlog.get_logger(__name__)
WAITING = Snooze(timedelta(0))


@dataclass(kw_only=True)
class LogShelf(Shelf):
    """Takes events one by one, or as a whole with a mark that it then tells."""

    mark: str | None = None

    async def _answer(self, asked: Any) -> Json:
        match asked:
            case {"do": "mark"}:
                return self.mark
            case {"whole": events, "mark": mark}:
                answers = [await super(LogShelf, self)._answer(one) for one in events]
                if answers.count("taken") == len(answers):
                    self.mark = mark
                else:
                    del self.taken[len(self.taken) - answers.count("taken") :]
                return answers
        return await super()._answer(asked)


class LogShelfSink(LogSink):
    """Puts the events of a batch onto a shelf one by one, as the author of a plugin would write it."""

    Options = ShelfOptions
    capabilities = SinkCapabilities(batches=True, order="key", refuses=True, largest=LARGEST)

    def __init__(self, name: str, options: ShelfOptions) -> None:
        self.name = name
        self._options = options
        self._link: Link | None = None

    async def open(self) -> str | None:
        await self.close()
        self._link = await self.connect()
        return None

    async def connect(self) -> Link:
        try:
            streams = await asyncio.open_connection("127.0.0.1", self._options.port, limit=LIMIT)
        except OSError as error:
            raise Disconnected(f"no shelf at port {self._options.port}") from error
        return Link(*streams)

    @property
    def link(self) -> Link:
        if self._link is None:
            raise Disconnected("the sink is not open")
        return self._link

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        waiting = set()
        for event in events:
            outcome = WAITING if event.job_id in waiting else self.judge(await self.put(event))
            if not isinstance(outcome, Done | Dead):
                waiting.add(event.job_id)
            outcomes.append(outcome)
        return outcomes

    async def put(self, event: LoggedEvent) -> str:
        return str(await self.link.ask(**self.asked(event)))

    def asked(self, event: LoggedEvent) -> dict[str, Json]:
        return {"id": str(event.id), "event": json.loads(event.cloud_event())}

    def judge(self, answer: str) -> Outcome:
        match answer:
            case "taken":
                return Done()
            case "refused":
                return Dead("refused: the shelf will never take it")
            case _:
                return Retry(answer)

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.writer.close()
            with suppress(ConnectionError):
                await link.writer.wait_closed()

    async def guarantee(self) -> Guarantee:
        return Guarantee(AT_LEAST_ONCE, "an event is put again until the shelf has taken it")


class KeepingShelfSink(LogShelfSink):
    """Puts a batch and its mark onto the shelf as one."""

    async def open(self) -> str | None:
        await super().open()
        found: str | None = await self.link.ask(do="mark")
        return found

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        answers = await self.link.ask(whole=[self.asked(event) for event in events], mark=mark)
        outcomes = [self.judge(answer) for answer in answers]
        if set(answers) == {"taken"}:
            return outcomes
        return [WAITING if outcome == Done() else outcome for outcome in outcomes]

    async def guarantee(self) -> Guarantee:
        return Guarantee(EXACTLY_ONCE, "events and position are put as one")


# --- with faults ---------------------------------------------------------------------------------


class OpensOnce(LogShelfSink):
    """Keeps a sign of its first life."""

    _closed = False

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        return [Retry("closed")] * len(events) if self._closed else await super().send(events, mark)

    async def close(self) -> None:
        self._closed = self._closed or self._link is not None
        await super().close()


class Talkative(LogShelfSink):
    """Logs what it was made of, all of it."""

    async def open(self) -> str | None:
        log.info("shelf.opened", token=self._options.token.get_secret_value())
        return await super().open()


class Latin(LogShelfSink):
    """Writes what an old encoding knows, and nothing else."""

    def asked(self, event: LoggedEvent) -> dict[str, Json]:
        text = json.dumps(event.data, ensure_ascii=False).encode("latin-1", "replace").decode("latin-1")
        return super().asked(event._replace(text=text))


class Shuffling(LogShelfSink):
    """Sends the last ones first."""

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        return list(reversed(await super().send(list(reversed(events)), mark)))


class Twice(LogShelfSink):
    """Sends every event twice, to be sure."""

    async def put(self, event: LoggedEvent) -> str:
        await super().put(event)
        return await super().put(event)


class Renaming(LogShelfSink):
    """Gives every try an identity of its own."""

    def asked(self, event: LoggedEvent) -> dict[str, Json]:
        return {**super().asked(event), "id": secrets.token_hex(8)}


class Careless(LogShelfSink):
    """Takes every answer for a yes."""

    def judge(self, answer: str) -> Outcome:
        return Done()


class Sorting(LogShelfSink):
    """Answers what was done first, as though there were no places."""

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        outcomes = await super().send(events, mark)
        return sorted(outcomes, key=lambda outcome: not isinstance(outcome, Done))


class Short(LogShelfSink):
    """Answers only for what was done."""

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        return [outcome for outcome in await super().send(events, mark) if isinstance(outcome, Done)]


class Hurried(LogShelfSink):
    """Goes on with a job though one of its events was not taken."""

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        return [self.judge(await self.put(event)) for event in events]


class Hopeful(LogShelfSink):
    """Tries again what was refused for good."""

    def judge(self, answer: str) -> Outcome:
        return Done() if answer == "taken" else Retry(answer)


class Stopping(LogShelfSink):
    """Buries what stands behind a dead event in the same batch with it."""

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        outcomes = list(await super().send(events, mark))
        dead = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, Dead)]
        return outcomes[: dead[0]] + [outcomes[dead[0]]] * (len(events) - dead[0]) if dead else outcomes


class Waiting(LogShelfSink):
    """Closes when it was answered, and not before."""

    _asked = False

    async def put(self, event: LoggedEvent) -> str:
        self._asked = True
        answer = await super().put(event)
        self._asked = False
        return answer

    async def close(self) -> None:
        for _ in range(100):
            if self._asked:
                await asyncio.sleep(0.01)
        await super().close()


class Deaf(LogShelfSink):
    """Does not hear that it is to end."""

    async def put(self, event: LoggedEvent) -> str:
        asking = asyncio.ensure_future(super().put(event))
        while not asking.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([asking])
        return asking.result()


class Faithful(LogShelfSink):
    """Connects once, and stays with that connection whatever becomes of it."""

    async def open(self) -> str | None:
        self._link = self._link or await self.connect()
        return None

    async def close(self) -> None:
        if self._link is not None:
            self._link.writer.close()


class Pretending(LogShelfSink):
    """Takes a destination that is away for one that has time."""

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        try:
            return await super().send(events, mark)
        except Disconnected:
            return [WAITING] * len(events)

    async def open(self) -> str | None:
        with suppress(Disconnected):
            await super().open()
        return None


class Blaming(LogShelfSink):
    """Says in its errors what it has tried, all of it."""

    async def connect(self) -> Link:
        try:
            return await super().connect()
        except Disconnected as error:
            raise Disconnected(f"{error} with {self._options.token.get_secret_value()}") from None


class Detached(LogShelfSink):
    """Says Done at once, and sends with the next batch."""

    _later: Sequence[LoggedEvent] = ()

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        earlier, self._later = self._later, events
        await super().send(earlier, mark)
        return [Done()] * len(events)


class Repeating(LogShelfSink):
    """Sends all that it has ever sent again when it was opened anew, to be sure."""

    def __init__(self, name: str, options: ShelfOptions) -> None:
        super().__init__(name, options)
        self._sent: list[LoggedEvent] = []
        self._opened = False

    async def open(self) -> str | None:
        self._opened = True
        return await super().open()

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        if self._opened:
            await super().send(self._sent, mark)
        self._opened = False
        self._sent += events
        return await super().send(events, mark)


class Lagging(KeepingShelfSink):
    """Keeps the mark of the batch before."""

    _before = "0:0:nowhere"

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        before, self._before = self._before, mark
        return await super().send(events, before)


class Parted(KeepingShelfSink):
    """Stores the position, and then the events one by one."""

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        await self.link.ask(whole=[], mark=mark)
        return await LogShelfSink.send(self, events, mark)


class Boasting(LogShelfSink):
    """Promises more than there is."""

    async def guarantee(self) -> Guarantee:
        return replace(await super().guarantee(), level=EXACTLY_ONCE)


class Showing(LogShelfSink):
    """Shows what it was made of."""

    def __repr__(self) -> str:
        return f"Showing({self.name!r}, {self._options.token.get_secret_value()!r})"


class UntypedOptions(ShelfOptions):
    """Says of its tags nothing, so that a variable's text stays text."""

    tags: Any = ()


class Untyped(LogShelfSink):
    """Has options that a file and a variable set differently."""

    Options = UntypedOptions


# --- the harness ---------------------------------------------------------------------------------


@asynccontextmanager
async def log_shelf(*, patience: float = 60.0, answers_within: float = 2.0) -> AsyncIterator[LogShelf]:
    """A fresh one, that runs."""
    token = secrets.token_hex(8)
    made = LogShelf(options={}, secrets=[token], patience=patience, answers_within=answers_within)
    await made.start()
    made.options = {"port": made.port, "token": token, "tags": ["a", "b"]}
    try:
        yield made
    finally:
        await made.stop()
