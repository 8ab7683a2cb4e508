"""The kit on a broker and a destination of its own: what passes here is broken in test_kit_can_fail.py."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from hammerwork.plugins.conformance import (
    BridgeContract,
    BridgeHarness,
    LogSinkContract,
    SinkContract,
    SinkHarness,
)

from .log_shelf import KeepingShelfSink, LogShelfSink, log_shelf
from .log_spool import LogSpoolBridge, log_spool_harness
from .shelf import ShelfSink, shelf
from .spool import SpoolBridge
from .spool_harness import spool_harness

LIKE_A_QUEUE = {
    "test_a_gateway_killed_around_commit_loses_and_repeats_nothing",
    "test_options_may_be_set_by_a_file_or_by_variables",
}
"""Tests that start processes and have nothing to do with logs here; Kafka passes them as a log."""


class TestSpool(BridgeContract):
    plugin = SpoolBridge
    kind = "hammerwork.tests.contracts.spool:SpoolBridge"

    @pytest.fixture
    async def harness(self) -> AsyncIterator[BridgeHarness]:
        async with spool_harness() as harness:
            yield harness


class TestLogSpool(BridgeContract):
    plugin = LogSpoolBridge
    kind = "hammerwork.tests.contracts.log_spool:LogSpoolBridge"

    @pytest.fixture
    async def harness(self, dsn: str) -> AsyncIterator[BridgeHarness]:
        async with log_spool_harness(dsn) as harness:
            yield harness


for name in LIKE_A_QUEUE:
    setattr(TestLogSpool, name, None)


class TestShelf(SinkContract):
    plugin = ShelfSink
    kind = "hammerwork.tests.contracts.shelf:ShelfSink"

    @pytest.fixture
    async def harness(self) -> AsyncIterator[SinkHarness]:
        async with shelf() as harness:
            yield harness


class TestLogShelf(LogSinkContract):
    plugin = LogShelfSink
    kind = "hammerwork.tests.contracts.log_shelf:LogShelfSink"

    @pytest.fixture
    async def harness(self) -> AsyncIterator[SinkHarness]:
        async with log_shelf() as harness:
            yield harness


class TestKeepingShelf(TestLogShelf):
    plugin = KeepingShelfSink
    kind = "hammerwork.tests.contracts.log_shelf:KeepingShelfSink"
