"""A registry, and a decoder on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from .registry_server import RegistryServer, served


@pytest.fixture
async def registry() -> AsyncIterator[RegistryServer]:
    async with served(RegistryServer()) as server:
        yield server
