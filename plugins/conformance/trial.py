"""BridgeTrial: what one test of a bridge has in hand: its bridges, intakes, gateways, and what was stored."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel

from ...core.errors import Disconnected
from ...core.ingest.decode import Decoder
from ...core.ingest.flow import FlowLimits
from ...core.ingest.intake import Intake, IntakeLimits
from ...core.ingest.mapping import FieldMapping, Mapper
from ...core.ingest.offsets import KeptOffsets
from ...core.message import Bridge, BridgeCapabilities, Delivery, Fate, LogBridge, Message, Receipt, Want
from ...core.postgres import schema
from ...core.postgres.database import Database
from .harness import BridgeHarness
from .process import clean_environment, command
from .spoken import keeping

PROMPT = Want(count=100, wait=timedelta(milliseconds=300), linger=timedelta(milliseconds=20))
QUIET = timedelta(milliseconds=200)
"""How long a broker must give nothing before there counts as nothing left."""
LOOK_EVERY = timedelta(milliseconds=50)
"""How often the intakes of the kit look whether they are to rest."""


class BridgeTrial:
    """All of it belongs to one test: the bridge's name, and the queue of its jobs, are used by no other."""

    def __init__(self, plugin: Any, kind: str, harness: BridgeHarness, database: Database, dsn: str) -> None:
        self.plugin = plugin
        self.kind = kind
        self.harness = harness
        self.database = database
        self.capabilities: BridgeCapabilities = plugin.capabilities
        self.name = f"trial_{secrets.token_hex(6)}"
        self._dsn = dsn
        self._published = 0
        self._bridges: list[Bridge] = []

    # --- bridges, driven by hand ---

    @property
    def options(self) -> BaseModel:
        """The harness's options, validated as settings would."""
        options: BaseModel = self.plugin.Options.model_validate(dict(self.harness.options))
        return options

    def bridge(self) -> Bridge:
        """Another bridge on the same queue, not open yet; it is closed at the end of the test."""
        made: Bridge = self.plugin(self.name, self.options)
        self.harness.attach(made)
        self._bridges.append(made)
        return made

    async def opened(self) -> Bridge:
        """Another open bridge on the same queue, in charge of its offsets where it has such."""
        made = self.bridge()
        if isinstance(made, LogBridge):
            made.keep(KeptOffsets(self.database, self.name))
        await made.open()
        return made

    async def close_all(self) -> None:
        """Close every bridge of the trial, one after the other."""
        for bridge in self._bridges:
            await bridge.close()

    async def take(self, bridge: Bridge, count: int, want: Want = PROMPT) -> list[Delivery]:
        """Pull until there are that many deliveries; fails the test when they do not come, or more come."""
        taken: list[Delivery] = []
        deadline = time.monotonic() + self.harness.patience
        while len(taken) < count:
            taken += await bridge.pull(want)
            if time.monotonic() > deadline:
                pytest.fail(f"{len(taken)} of {count} messages came within {self.harness.patience:g} s")
        assert len(taken) == count, f"{len(taken)} deliveries of {count} messages"
        return taken

    async def nothing_comes(self, bridge: Bridge, within: timedelta = QUIET) -> None:
        """Fails the test when a pull of that length brings something."""
        more = await bridge.pull(Want(wait=within))
        assert not more, f"{len(more)} messages came that should not: {[numbered(more)]}"

    # --- messages ---

    async def publish(self, count: int, *, keys: int = 0) -> list[int]:
        """Publish that many messages whose bodies are numbered, over `keys` keys in turn; their numbers."""
        numbers = list(range(self._published, self._published + count))
        self._published += count
        messages = [self.message(n, key=f"key {n % keys}" if keys else None) for n in numbers]
        await self.harness.publish(messages)
        return numbers

    def message(self, number: int, *, key: str | None = None) -> Message:
        """A message whose body is JSON with this number in it."""
        body = json.dumps({"n": number, "key": key}).encode()
        return Message(body=body, id=f"{self.name}-{number}", key=key, content_type="application/json")

    # --- intakes, and what they store ---

    def intake(
        self, bridge: Bridge | None = None, *, mapper: Mapper | None = None, count: int = 10
    ) -> Intake:
        """An intake with batches of `count`, into a queue of the trial's own."""
        limits = IntakeLimits(count=count, wait=timedelta(milliseconds=200))
        source = bridge or self.bridge()
        mapping = mapper or FieldMapping(self.name)
        flow = FlowLimits(look_every=LOOK_EVERY)
        return Intake(self.database, source, Decoder(), mapping, limits, flow=flow, kind=self.kind)

    @asynccontextmanager
    async def running(self, intake: Intake) -> AsyncIterator[asyncio.Task[None]]:
        """Run it until the block ends, then stop it in good order."""
        task = asyncio.create_task(intake.run(), name="intake")
        try:
            yield task
        finally:
            intake.stop()
            done, _ = await asyncio.wait([task], timeout=self.harness.patience)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert done, f"the intake did not stop within {self.harness.patience:g} s"

    async def jobs(self) -> list[Any]:
        """The payloads of the jobs that were made, in the order in which they were."""
        query = "select payload from hammerwork.jobs where queue = $1 order by run_at, id"
        rows = await self._fetch(query, self.name)
        return [json.loads(row["payload"]) for row in rows]

    async def dead_letters(self) -> list[asyncpg.Record]:
        """What became a dead letter: rows with `reason` and `body`."""
        return await self._fetch("select * from hammerwork.dead_letters where bridge = $1", self.name)

    async def all_stored(self, numbers: Sequence[int]) -> None:
        """Wait until each of these messages is a job. Fails the test when one is not, or is one too often."""

        missing = set(numbers)

        async def complete() -> bool:
            missing.difference_update(job["n"] for job in await self.jobs())
            return not missing

        await self.until(complete, lambda: f"{len(numbers)} messages are jobs: {sorted(missing)} are not")
        counts = Counter(job["n"] for job in await self.jobs())
        assert set(counts) == set(numbers), "jobs of messages that were never sent"
        if self.capabilities.stable_ids or self.capabilities.kind == "log":
            twice = sorted(number for number, times in counts.items() if times > 1)
            assert not twice, f"messages {twice} are stored more than once"

    async def nothing_is_left(self) -> None:
        """Wait until the broker owes nothing; fails the test when it goes on owing, or gives more."""
        await self.close_all()

        async def none() -> bool:
            return await self.harness.unsettled() == 0

        await self.until(none, "nothing is left at the broker")
        if self.capabilities.kind == "ack":
            bridge = await self.opened()
            await self.nothing_comes(bridge)
            await bridge.close()

    async def all_left(self, count: int) -> None:
        """Wait until the broker owes that many messages, and no fewer."""

        async def reached() -> bool:
            return await self.harness.unsettled() == count

        await self.until(reached, f"the broker still has all of {count} messages")

    async def until(self, condition: Condition, what: str | Callable[[], str]) -> None:
        """Poll until the condition holds; fails the test when the harness's patience is over."""
        await until(condition, self.harness.patience, what)

    @asynccontextmanager
    async def held_commits(self) -> AsyncIterator[None]:
        """A block in which no intake gets past its inbox, and so none commits."""
        connection = await asyncpg.connect(self._dsn)
        try:
            async with connection.transaction():
                await connection.execute("lock table hammerwork.inbox, hammerwork.jobs in exclusive mode")
                yield
        finally:
            await connection.close()

    async def _fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self._dsn)
        try:
            return await connection.fetch(query, *arguments)
        finally:
            await connection.close()

    # --- gateways as processes ---

    async def run_to_its_end(self, failpoints: str) -> tuple[int, str]:
        """`hammerwork run` with this bridge and with failpoints armed, until it ends; its exit code
        (negative: the signal), and what it printed."""
        bridge = {"type": self.kind, "to_queue": self.name, "batch": {"count": 5}, **self.harness.options}
        environment = {
            **clean_environment(),
            "HAMMERWORK_DATABASE_URL": self._dsn,
            "HAMMERWORK_HTTP__PORT": "0",
            "HAMMERWORK_FAILPOINTS": failpoints,
            f"HAMMERWORK_BRIDGES__{self.name.upper()}": json.dumps(bridge),
            **(self.harness.environment or {}),
        }
        return await command("run", environment=environment, within=self.harness.patience + 15)


Condition = Callable[[], Awaitable[bool]]


async def until(condition: Condition, patience: float, what: str | Callable[[], str]) -> None:
    """Poll until the condition holds; fails the test after `patience` seconds, and says what did not come."""
    deadline = time.monotonic() + patience
    while not await condition():
        if time.monotonic() > deadline:
            awaited = what if isinstance(what, str) else what()
            pytest.fail(f"not within {patience:g} s: {awaited}")
        await asyncio.sleep(0.02)


def numbered(deliveries: Sequence[Delivery]) -> list[int]:
    """The numbers in their bodies."""
    return [json.loads(delivery.message.body)["n"] for delivery in deliveries]


def receipts(deliveries: Sequence[Delivery]) -> list[Receipt]:
    """What the intake would say of them after COMMIT."""
    return [Receipt(delivery, Fate.STORED) for delivery in deliveries]


@asynccontextmanager
async def bridge_trial(
    plugin: Any, kind: str, harness: BridgeHarness, dsn: str
) -> AsyncIterator[BridgeTrial]:
    """A trial of that bridge, which settings name `kind`. At its end everything is closed, and what was
    logged is searched for secrets."""
    with keeping(harness.secrets):
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(
                Database(dsn, application_name="hammerwork-conformance")
            )
            await schema.migrate(database)
            trial = BridgeTrial(plugin, kind, harness, database, dsn)
            stack.push_async_callback(_close, trial)
            yield trial


async def _close(trial: BridgeTrial) -> None:
    with suppress(Disconnected):
        await trial.close_all()
