"""What an author tells the kit about a broker or a destination: a fresh queue, and how to break it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import pytest

from ...core.job import Json
from ...core.message import Bridge, Message


@dataclass(kw_only=True)
class Harness:
    """What both sorts have in common. What is not overridden cannot be done: tests that need it are skipped.

    `options`: those of the plugin, as JSON would hold them: durations in seconds, secrets in plain text.
    `secrets`: what must never be seen in a log, a repr, an error or a list of settings.
    `environment`: more variables for a gateway that the kit starts as a process.
    `patience`: seconds within which everything must have come to rest, whatever happened and however slow the
    machine is; a test that passes never waits for it.
    """

    options: Mapping[str, Json]
    secrets: Sequence[str] = ()
    environment: Mapping[str, str] | None = None
    patience: float = 60.0

    async def restart(self) -> None:
        """Kill the broker or destination and start it on its data; return when it takes connections."""
        self._cannot("restart the server")

    async def unreachable(self) -> Mapping[str, Json]:
        """Options with the same secrets, for a place where nobody answers."""
        self._cannot("name a place where nobody answers")

    def _cannot(self, what: str) -> NoReturn:
        pytest.skip(f"{type(self).__name__} cannot {what}")


@dataclass(kw_only=True)
class BridgeHarness(Harness):
    """One fresh queue (topic, stream, path) of a real broker, for one test.

    `lease`: seconds after which what is in hand comes again, where the broker has such a thing.
    """

    lease: float | None = None

    def attach(self, bridge: Bridge) -> None:
        """Called with every bridge that the kit makes, before it is opened: for one that must be reached from
        without. The kit's own gateway processes mount it as any gateway does."""
        return

    async def publish(self, messages: Sequence[Message]) -> None:
        """Send these, in their order; return when the broker has them for good. Of a message, `body` and what
        the capabilities say that the broker `carries` count."""
        raise NotImplementedError

    async def unsettled(self) -> int:
        """How many messages the broker has not been told the end of. Called while no bridge is open."""
        raise NotImplementedError

    async def cut(self) -> None:
        """Close every connection to the broker, as a network does."""
        self._cannot("cut connections")

    async def sever(self, bridge: Bridge) -> None:
        """Part this bridge from its broker, so that what it has in hand comes again. Unless overridden: by
        `cut`, or by closing it where that cannot be done. Override it where what is in hand belongs to no
        connection, so that the bridge does not feel a cut and goes on prolonging its leases."""
        if type(self).cut is BridgeHarness.cut:
            await bridge.close()
        else:
            await self.cut()


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What a destination got: the event's id as it was told, and the event as a CloudEvents object."""

    event_id: str
    event: Mapping[str, Json]


@dataclass(kw_only=True)
class SinkHarness(Harness):
    """One fresh place of a real destination, for one test.

    `answers_within`: seconds within which a delivery ends, also when the destination hangs.
    """

    answers_within: float = 15.0

    async def received(self) -> Sequence[Received]:
        """What has arrived so far, repetitions too: in its order, of a log in that of each job's events."""
        raise NotImplementedError

    async def fail(self, times: int) -> None:
        """Let the next so many deliveries fail in a way that trying again cures. Of a log sink: about so many
        events of the next batches, or those batches, and if it can be not all."""
        self._cannot("fail for a while")

    async def refuse(self) -> None:
        """From now on, say of every event that it will never be taken."""
        self._cannot("refuse an event for good")

    async def hang(self) -> None:
        """From now on, answer nothing, and do not close."""
        self._cannot("hang")
