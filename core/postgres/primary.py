"""Which of several Postgres hosts is the primary: asked of all at once, watched, never a zombie.

asyncpg's own multi-host DSN with `target_session_attrs=read-write` was seen to hang on a frozen host and
to stay for ever on an old primary that had come back writable, hence this room.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import structlog

from ..errors import Misconfigured

log = structlog.get_logger(__name__)

PROBE_TIMEOUT = 2.0
WATCH_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class _Answer:
    dsn: str
    writable: bool
    timeline: int


class PrimaryFinder:
    """The DSN of the primary among the hosts of a DSN.

    One host: that host, without a look. Several: all are probed in parallel; of those that are not in
    recovery the highest timeline wins, and one below the highest ever seen is never taken, because it
    is an old primary that does not know it was replaced.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._hosts = single_hosts(dsn)
        self._current: str | None = self._hosts[0] if len(self._hosts) == 1 else None
        self._highest = 0
        self._changed: Callable[[], Awaitable[None]] | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def primary(self) -> str:
        """A DSN of one host; raises ConnectionRefusedError while no host is a writable primary."""
        return self._current or await self._find()

    def on_change(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Watch from now on, once a second, and call back when the primary moved (several hosts only)."""
        if len(self._hosts) > 1 and self._watcher is None:
            self._changed = callback
            self._watcher = asyncio.create_task(self._watch(), name="primary watcher")

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None

    async def _find(self) -> str:
        answers = await asyncio.gather(*(_probe(host) for host in self._hosts))
        writable = [a for a in answers if a is not None and a.writable and a.timeline >= self._highest]
        if not writable:
            self._current = None
            raise ConnectionRefusedError("no host of the DSN is a writable primary")
        best = max(writable, key=lambda answer: answer.timeline)
        self._highest, self._current = best.timeline, best.dsn
        return best.dsn

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_EVERY)
            before = self._current
            try:
                found: str | None = await self._find()
            except OSError:
                found = None
            if found != before and self._changed is not None:
                log.warning("primary moved", before=before and masked(before), now=found and masked(found))
                await self._changed()


async def _probe(dsn: str) -> _Answer | None:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            connection = await asyncpg.connect(dsn, timeout=PROBE_TIMEOUT, statement_cache_size=0)
            try:
                # pg_control_checkpoint() still shows the old timeline after a promotion; WAL names do not.
                (row,) = await connection.fetch(
                    "select not pg_is_in_recovery() and not current_setting('transaction_read_only')::bool"
                    " as writable, case when pg_is_in_recovery() then '00000000'"
                    " else substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) end as timeline"
                )
            finally:
                connection.terminate()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None
    return _Answer(dsn=dsn, writable=row["writable"], timeline=int(row["timeline"], 16))


def single_hosts(dsn: str) -> list[str]:
    """A DSN a host: `postgresql://user@a:1,b:2/db` gives two. Raises Misconfigured for anything else
    than a postgresql:// URL."""
    if not re.match(r"postgres(ql)?://", dsn):
        raise Misconfigured(
            "the database URL must begin with postgresql://",
            hint="postgresql://user:password@host:5432/database",
        )
    parts = urlsplit(dsn)
    credentials, at, hosts = parts.netloc.rpartition("@")
    return [urlunsplit(parts._replace(netloc=credentials + at + host)) for host in hosts.split(",")]


def masked(dsn: str) -> str:
    """The DSN without its password and options, fit for logs."""
    parts = urlsplit(dsn)
    credentials, at, hosts = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{credentials.partition(':')[0]}{at}{hosts}{parts.path}"
