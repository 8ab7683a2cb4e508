"""Fixtures of the sinks' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from .hostile_server import HostileServer


@pytest.fixture
async def server() -> AsyncIterator[HostileServer]:
    """A hostile server on loopback, without TLS."""
    async with HostileServer().running() as running:
        yield running
