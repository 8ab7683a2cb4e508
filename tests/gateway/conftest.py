"""Fixtures of the gateway's tests: the command with and without a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from hammerwork.core.queue import Queue

from .command import Hammerwork


@pytest.fixture
def bare(tmp_path: Path) -> Hammerwork:
    """Without a database."""
    return Hammerwork(tmp_path)


@pytest.fixture
def hammerwork(tmp_path: Path, dsn: str, queue: Queue) -> Hammerwork:
    """On a fresh database with the schema."""
    return Hammerwork(tmp_path, dsn)
