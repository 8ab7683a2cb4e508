"""One database for all the contracts: the kit's tests take names of their own in it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ..services.postgres import PostgresService


@pytest.fixture(scope="session")
def contracts_dsn(postgres_service: PostgresService) -> Iterator[str]:
    with ThreadPoolExecutor(1) as thread:
        url = thread.submit(asyncio.run, postgres_service.create_database()).result()
        yield url
        thread.submit(asyncio.run, postgres_service.drop_database(url)).result()


@pytest.fixture
def dsn(contracts_dsn: str) -> str:
    """An empty database when the first test asks, shared by all that follow."""
    return contracts_dsn
