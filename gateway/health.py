"""Is the gateway alive, and is it ready: every part with its state, its reason, and whether it must run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from ..core.errors import HammerworkError
from ..core.ingest.intake import Intake
from ..core.postgres.database import Database, mapped_errors
from ..core.postgres.notifier import Notifier
from ..core.publish.log_relay import LogRelay
from ..core.publish.relay import Relay
from ..core.status import State

PROBE_EVERY = 1.0
PROBE_WITHIN = 2.0
"""Seconds: one probe of the database serves everybody who asks meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One part of the gateway. It is ready when all that are `required` are running, or paused on purpose."""

    name: str
    state: State
    reason: str = ""
    required: bool = True

    @property
    def in_the_way(self) -> bool:
        return self.required and self.state not in ("running", "paused")


class Health:
    """Asks the parts how they are. `state` is the gateway's own: starting, running or stopped."""

    def __init__(
        self,
        database: Database,
        *,
        notifier: Notifier,
        intakes: Mapping[str, Intake],
        required: frozenset[str],
        relays: Mapping[str, Relay | LogRelay],
    ) -> None:
        self.state: State = "starting"
        self.reason = "the parts are not started yet"
        self._database = database
        self._notifier = notifier
        self._intakes = intakes
        self._required = required
        self._relays = relays
        self._probing = asyncio.Lock()
        self._probed_at = 0.0
        self._database_reason = ""

    def became(self, state: State, reason: str = "") -> None:
        """The gateway as a whole changed."""
        self.state, self.reason = state, reason

    async def components(self) -> list[Component]:
        """Every part, the gateway itself first. A sink that is held, and a LISTEN that is not heard, make
        work late and lose nothing: they are not required."""
        found = [
            Component(name="gateway", state=self.state, reason=self.reason),
            await self._probed_database(),
            self._notifications(),
        ]
        for name, intake in self._intakes.items():
            status = intake.status
            found.append(
                Component(
                    name=f"bridge.{name}",
                    state=status.state,
                    reason=status.reason,
                    required=name in self._required,
                )
            )
        for name, relay in self._relays.items():
            status = relay.status
            found.append(
                Component(name=f"sink.{name}", state=status.state, reason=status.reason, required=False)
            )
        return found

    def _notifications(self) -> Component:
        if self._notifier.hears:
            return Component(name="notifications", state="running", required=False)
        return Component(
            name="notifications", state="holding", reason="LISTEN is not heard; workers poll", required=False
        )

    async def _probed_database(self) -> Component:
        async with self._probing:
            if not self._probed_at or time.monotonic() - self._probed_at > PROBE_EVERY:
                self._database_reason = await self._probe()
                self._probed_at = time.monotonic()
        reason = self._database_reason
        return Component(name="database", state="holding" if reason else "running", reason=reason)

    async def _probe(self) -> str:
        """Why the database cannot be used at this moment; nothing when it can."""
        try:
            async with asyncio.timeout(PROBE_WITHIN), self._database.acquire() as connection:
                with mapped_errors(self._database.where, sent=False):
                    await connection.execute("select 1")
        except TimeoutError:
            return f"no answer within {PROBE_WITHIN:g} s"
        except HammerworkError as error:
            return str(error)
        return ""
