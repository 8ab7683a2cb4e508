"""LISTEN and NOTIFY: a hint that work is waiting, never the truth; a poll is always behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Protocol
from uuid import UUID, uuid4

import asyncpg
import structlog

from ..backoff import Backoff
from ..errors import HammerworkError
from .database import Database

log = structlog.get_logger(__name__)

CHANNEL = "hammerwork"
SELF_TEST_WITHIN = 2.0
SELF_TEST_EVERY = 60.0


class Listener(Protocol):
    """Who wants hints. Called on the event loop; must return at once."""

    def work_waits(self, queue: str) -> None:
        """A queue has new work."""

    def cancel_asked(self, job_id: UUID) -> None:
        """A running job should stop."""

    def hints_missed(self) -> None:
        """The connection is new: look for yourself now."""


class Notifier:
    """One LISTEN connection a process. Listens, tests that it hears itself, reconnects for ever.

    A pooler in transaction mode swallows LISTEN without an error, and a frozen host never closes the
    connection: so the notifier sends itself a word and, when it does not come back, says so and listens
    again. `hears` tells whether hints can be relied on at this moment.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: list[Listener] = []
        self._echo: dict[str, asyncio.Event] = {}
        self.hears = False

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Hand hints to `listener` until the function that this returns is called."""
        self._listeners.append(listener)
        return partial(self._listeners.remove, listener)

    async def run(self) -> None:
        """Listen until cancelled."""
        backoff = Backoff()
        while True:
            try:
                await self._listen(backoff)
            except (HammerworkError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                self.hears = False
                delay = backoff.next()
                log.warning(
                    "listening stopped, polling meanwhile", error=str(error), retry_in=round(delay, 2)
                )
                await asyncio.sleep(delay)

    async def _listen(self, backoff: Backoff) -> None:
        connection = await self._database.connect()
        gone = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: gone.set())
            await connection.add_listener(CHANNEL, self._heard)
            for listener in self._listeners:
                listener.hints_missed()
            while not gone.is_set():
                self.hears = await self._echoes()
                if not self.hears:
                    raise OSError(
                        "a NOTIFY did not arrive; behind a pooler in transaction mode, give the gateway a"
                        " direct connection or live with polling"
                    )
                backoff.reset()
                with suppress(TimeoutError):
                    async with asyncio.timeout(SELF_TEST_EVERY):
                        await gone.wait()
            raise OSError("the connection was closed")
        finally:
            self.hears = False
            connection.terminate()

    async def _echoes(self) -> bool:
        word = uuid4().hex
        heard = self._echo[word] = asyncio.Event()
        try:
            await self._database.fetch("announce", [f"echo {word}"])
            async with asyncio.timeout(SELF_TEST_WITHIN):
                await heard.wait()
        except TimeoutError:
            return False
        finally:
            del self._echo[word]
        return True

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        kind, _, subject = str(payload).partition(" ")
        match kind:
            case "queue":
                for listener in self._listeners:
                    listener.work_waits(subject)
            case "cancel":
                with suppress(ValueError):
                    job_id = UUID(subject)
                    for listener in self._listeners:
                        listener.cancel_asked(job_id)
            case "echo" if subject in self._echo:
                self._echo[subject].set()


class Announcer:
    """Says "these queues have work", at most once every 2 ms a process, with a word for whoever came later.

    A transaction with a NOTIFY holds one lock of the whole server from its COMMIT's beginning to its end, so
    one that also waits for the disk makes all others wait with it. Jobs are therefore announced after their
    own COMMIT, by a transaction that has nothing to flush.
    """

    EVERY = 0.002

    def __init__(self, database: Database) -> None:
        self._database = database
        self._owed: set[str] = set()
        self._next = 0.0
        self._speaking: asyncio.Task[None] | None = None

    def announce(self, queues: Iterable[str]) -> None:
        """Tell idle workers, soon. Only call it after the COMMIT: a worker that looks before sees nothing,
        and would not look again."""
        self._owed.update(queues)
        if self._owed and self._speaking is None:
            self._speaking = asyncio.create_task(self._speak(), name="announce")

    async def close(self) -> None:
        """Say what is owed."""
        if self._speaking is not None:
            await asyncio.gather(self._speaking, return_exceptions=True)

    async def _speak(self) -> None:
        try:
            while self._owed:
                await asyncio.sleep(max(0.0, self._next - time.monotonic()))
                said, self._owed = self._owed, set()
                self._next = time.monotonic() + self.EVERY
                with suppress(HammerworkError, asyncpg.PostgresError):  # the poll is behind it
                    await self._database.fetch("announce", [f"queue {queue}" for queue in sorted(said)])
        finally:
            self._speaking = None
