"""What chaos tests share: a queue on each side, the ledger between them, and children that always end."""

from __future__ import annotations

import gc
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest

from hammerwork.core.queue import Queue

from ..services import ServiceMissing
from ..services.postgres import VARIABLE, PostgresService, find_postgres
from .ledger import Ledger
from .processes import Child
from .publisher import Publisher

Spawn = Callable[..., Child]

KILLED_KAFKA = (
    pytest.mark.usefixtures("nothing_left_of_kafka"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
)
"""For tests that kill or freeze a broker: a client that is cut while it connects now and then leaves a
connection to the garbage collector (seen of aiokafka 0.14), which would blame whatever test comes later."""


@pytest.fixture
def nothing_left_of_kafka() -> Iterator[None]:
    """Garbage of this test is found in it."""
    yield
    gc.collect()


@pytest.fixture
async def ledger(queue: Queue, dsn: str) -> Ledger:
    """The ledger of the test's own database."""
    ledger = Ledger(dsn)
    await ledger.open()
    return ledger


@pytest.fixture
async def publisher(rabbitmq_url: str) -> AsyncIterator[Publisher]:
    """A producer on a fresh durable queue, which is deleted afterwards."""
    publisher = Publisher(rabbitmq_url, f"chaos.{secrets.token_hex(6)}")
    await (await publisher.channel()).queue_declare(publisher.queue, durable=True)
    yield publisher
    await publisher.close()
    cleaner = Publisher(rabbitmq_url, publisher.queue)
    await (await cleaner.channel()).queue_delete(cleaner.queue)
    await cleaner.close()


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Start `module` of this folder as a process of its own; what still runs at the end is killed."""
    children: list[Child] = []

    def start(module: str, arguments: Mapping[str, str], failpoints: str = "") -> Child:
        output = tmp_path / f"{module}-{len(children)}"
        children.append(Child(module, output, arguments, failpoints))
        return children[-1]

    yield start
    for child in children:
        child.dispose()


@pytest.fixture(scope="session")
def fragile_postgres() -> Iterator[PostgresService]:
    """A Postgres of our own, to be restarted: other tests' databases are not on it."""
    if VARIABLE in os.environ:
        pytest.skip(f"the server of {VARIABLE} is not ours to restart")
    try:
        service = find_postgres()
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    try:
        yield service
    finally:
        service.close()
