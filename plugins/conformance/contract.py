"""Contract: what the suites of the kit have in common: a plugin, its harness, a trial, and its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from .choose import Capabilities, choose
from .database import DatabaseFixtures
from .settings import same_by_file_and_variables


class Contract(DatabaseFixtures):
    """Subclass one of the suites, name the plugin, give it a harness, and pytest does the rest:

        class TestMyBridge(BridgeContract):
            plugin = MyBridge
            kind = "mine"       # as settings name it: an entry point, or package.module:MyBridge

            @pytest_asyncio.fixture
            async def harness(self) -> AsyncIterator[BridgeHarness]: ...

    Tests that the declared capabilities make no sense of are taken out; those for which the harness cannot
    break the broker or the destination are skipped, and say so. The database is the one of a fixture `dsn`,
    where there is one.
    """

    pytestmark = pytest.mark.asyncio

    plugin: Any
    kind: str
    section: ClassVar[str]
    """Where settings name it."""
    declares: ClassVar[type[Capabilities]]

    def begun(self, harness: Any, dsn: str) -> AbstractAsyncContextManager[Any]:
        """A trial of the plugin with this harness and database."""
        raise NotImplementedError

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "plugin" in vars(cls):
            choose(cls, cls.plugin, cls.declares)

    @pytest_asyncio.fixture
    async def trial(self, harness: Any, conformance_dsn: str) -> AsyncIterator[Any]:
        async with self.begun(harness, conformance_dsn) as trial:
            yield trial

    async def test_options_may_be_set_by_a_file_or_by_variables(self, trial: Any, tmp_path: Path) -> None:
        """Both give the same settings, in which no secret is shown."""
        table = {"type": trial.kind, **trial.harness.options}
        await same_by_file_and_variables(self.section, table, trial.harness.secrets, tmp_path)
