"""Postgres as the rest of the core sees it: a pool, named statements, and errors that say what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from importlib.resources import files
from types import TracebackType
from typing import Any, Self

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy
from asyncpg.transaction import Transaction

from ..errors import CommitUnknown, Misconfigured, Unavailable
from .primary import PrimaryFinder, masked

log = structlog.get_logger(__name__)

Connection = asyncpg.Connection | PoolConnectionProxy
Record = asyncpg.Record

STATEMENT_TIMEOUT = 30.0
"""Seconds until a statement that does not answer counts as cut: no statement of ours takes longer, so
silence means a half-open connection."""

IDLE = 10.0
"""Seconds that a transaction of ours may say nothing. Well above what a busy event loop takes for a step."""

BROKEN = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""What the driver raises when a connection cannot be tidied up any more."""


@cache
def statement(name: str) -> str:
    """The text of core/sql/<name>.sql."""
    return (files("hammerwork.core") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


class Database:
    """A pool of connections to one Postgres, from a DSN or given by the caller.

    With a DSN of several hosts the pool follows the primary (primary.py). A pool that the caller gave is
    never closed here. All methods raise Unavailable when Postgres is away, CommitUnknown when
    the connection broke after a statement was sent, and Misconfigured for what waiting cannot mend.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        pool: asyncpg.Pool | None = None,
        size: int = 10,
        application_name: str = "hammerwork",
        prepared_statements: bool = True,
    ) -> None:
        if (dsn is None) == (pool is None):
            raise Misconfigured("a database takes a DSN or a pool, and not both")
        self._finder = PrimaryFinder(dsn) if dsn is not None else None
        self._pool = pool
        self._owned = pool is None
        self._size = size
        self._application_name = application_name
        # A pooler in transaction mode hands our prepared statements to other sessions.
        self._cache = 1024 if prepared_statements else 0
        self._opening = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Database({self.where})"

    @property
    def reachable(self) -> bool:
        """Whether `connect` can be used: not with the caller's pool, whose address we do not know."""
        return self._finder is not None

    @property
    def where(self) -> str:
        """The address without its password, for logs and errors."""
        return masked(self._finder.dsn) if self._finder else "the caller's pool"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect. Idempotent; the other methods call it when nobody did."""
        async with self._opening:
            if self._pool is not None:
                return
            assert self._finder is not None
            pool = asyncpg.create_pool(
                min_size=1,
                max_size=self._size,
                connect=self._connect,
                reset=_tidy,
                command_timeout=STATEMENT_TIMEOUT,
                max_inactive_connection_lifetime=300.0,
            )
            with mapped_errors(self.where, sent=False):
                self._pool = await pool
            self._finder.on_change(self._expire)

    async def close(self, *, within: float = 5.0) -> None:
        """Close what this object opened; connections still in use after `within` seconds are cut."""
        if self._finder is not None:
            await self._finder.close()
        if self._owned and self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                async with asyncio.timeout(within):
                    await pool.close()
            except (TimeoutError, asyncpg.PostgresError, OSError, asyncpg.InterfaceError):
                pool.terminate()

    async def connect(self) -> asyncpg.Connection:
        """A connection outside the pool, for LISTEN and heartbeats; the caller closes it."""
        if self._finder is None:
            raise Misconfigured(
                "listening and heartbeats need a DSN of their own",
                hint="give workers and notifiers a Queue(dsn) of their own beside the one on your pool",
            )
        with mapped_errors(self.where, sent=False):
            return await self._connect()

    async def fetch(self, name: str, *arguments: object) -> list[Record]:
        """Run the statement core/sql/<name>.sql in a transaction of its own."""
        async with self.acquire() as connection:
            with mapped_errors(self.where, sent=True):
                return await connection.fetch(statement(name), *arguments)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection of the pool. Errors inside the block are the block's own."""
        if self._pool is None:
            await self.open()
        assert self._pool is not None
        with mapped_errors(self.where, sent=False):
            connection = await self._pool.acquire(timeout=STATEMENT_TIMEOUT)
        try:
            yield connection
        finally:
            # What the block did is known by now: a connection that breaks on its way back is terminated by
            # the pool, and that is all.
            with suppress(*BROKEN):
                await self._pool.release(connection)

    @asynccontextmanager
    async def transaction(self, *, lent: bool = False) -> AsyncIterator[Connection]:
        """A transaction: committed when the block ends, rolled back when it raises.

        An error of the driver inside the block comes out mapped; at COMMIT it is CommitUnknown. `lent`: an
        application's code runs in it, so what it may have changed in the session is reset afterwards, and
        it may rest between its statements; of any other Postgres ends what says nothing for IDLE seconds.
        """
        async with self.acquire() as connection:
            try:
                async with self._begun(connection.transaction() if lent else _Brisk(connection)):
                    yield connection
            finally:
                if lent:
                    with suppress(*BROKEN):
                        await connection.reset()

    @asynccontextmanager
    async def _begun(self, transaction: Transaction | _Brisk) -> AsyncIterator[None]:
        with mapped_errors(self.where, sent=False):
            await transaction.start()
        try:
            with mapped_errors(self.where, sent=False):
                yield
        except BaseException:
            # Where the connection is gone the server has rolled back, and the pool's proxy refuses every
            # call, is_closed() too; the block's own error is the one to tell.
            with suppress(*BROKEN):
                await transaction.rollback()
            raise
        with mapped_errors(self.where, sent=True):
            await transaction.commit()

    async def _connect(self, *_: object, **__: object) -> asyncpg.Connection:
        assert self._finder is not None
        connection: asyncpg.Connection = await asyncpg.connect(
            await self._finder.primary(),
            timeout=10.0,
            command_timeout=STATEMENT_TIMEOUT,
            statement_cache_size=self._cache,
            max_cacheable_statement_size=1024 * 64,
            server_settings={"application_name": self._application_name},
        )
        return connection

    async def _expire(self) -> None:
        if self._pool is not None:
            await self._pool.expire_connections()


class _Brisk:
    """A transaction of ours, whose statements follow at once: in a process that has stopped in its tracks it
    would hold up, by what it has locked, every other one. Its limit costs no round trip of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def start(self) -> None:
        await self._connection.execute(f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = '{IDLE:g}s'")

    async def commit(self) -> None:
        await self._connection.execute("COMMIT")

    async def rollback(self) -> None:
        await self._connection.execute("ROLLBACK")


async def _tidy(connection: asyncpg.Connection) -> None:
    """Our statements leave nothing behind in a session, so the driver's reset, a round trip at every
    release, is for the connection alone that comes back in the middle of a transaction."""
    if connection.is_in_transaction():
        await connection.reset()


async def copy_in(
    connection: Connection,
    table: str,
    columns: Sequence[str],
    rows: Iterable[tuple[object, ...]] | AsyncIterable[tuple[object, ...]],
) -> None:
    """COPY rows into a table of ours; what a row has beyond `columns` is left out.

    Where the driver's send buffer is full, it knows no time limit and hears of no lost connection: both end
    the COPY here. One that ends at our end costs the connection, because the driver has it cancelled and then
    waits for an answer, which the server may have given before.
    """
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def lose(_: object) -> None:
        lost.set_result(None)

    connection.add_termination_listener(lose)
    copying = asyncio.create_task(
        connection.copy_records_to_table(table, schema_name="hammerwork", columns=columns, records=rows),
        name=f"copy into {table}",
    )
    copying.add_done_callback(_heard)
    ended: set[asyncio.Future[Any]] = set()
    try:
        ends: set[asyncio.Future[Any]] = {copying, lost}
        ended, _ = await asyncio.wait(ends, timeout=STATEMENT_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
    finally:
        try:
            # First, and then the connection: the driver writes to it that the COPY is given up.
            copying.cancel()
            await asyncio.wait({copying})
        finally:
            with suppress(asyncpg.InterfaceError):  # of the pool's proxy, where the connection is gone
                connection.remove_termination_listener(lose)
                if copying not in ended or not isinstance(_heard(copying), asyncpg.PostgresError | None):
                    connection.terminate()
    if copying not in ended:
        raise asyncpg.ConnectionDoesNotExistError("the connection broke, or said nothing, during a COPY")
    copying.result()


def _heard(task: asyncio.Task[Any]) -> BaseException | None:
    """How a task failed, so that asyncio does not log that nobody asked."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()


class mapped_errors:
    """A block in which the driver's errors become ours, `__cause__` kept.

    `sent` says whether a write may already have reached the server: a connection that breaks then
    leaves its fate open (CommitUnknown), one that breaks before did nothing (Unavailable).
    """

    def __init__(self, where: str, *, sent: bool) -> None:
        self._where = where
        self._sent = sent

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        match error:
            case None:
                return
            case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
                raise Misconfigured(
                    f"Postgres at {self._where} refused the user or the password",
                    hint="check database.url (HAMMERWORK_DATABASE__URL)",
                ) from error
            case asyncpg.InvalidCatalogNameError():
                raise Misconfigured(
                    f"Postgres at {self._where}: {error}", hint="create the database, or name another one"
                ) from error
            case (
                asyncpg.UndefinedTableError()
                | asyncpg.InvalidSchemaNameError()
                | (asyncpg.UndefinedFunctionError() | asyncpg.UndefinedColumnError())
            ):
                raise Misconfigured(
                    f"the schema at {self._where} is missing or older than this version",
                    hint="run `hammerwork migrate`",
                ) from error
            case asyncpg.InsufficientPrivilegeError():
                raise Misconfigured(
                    f"Postgres at {self._where}: {error}", hint="grant the role what docs/operations.md lists"
                ) from error
            case _ if lost_connection(error):
                if self._sent:
                    raise CommitUnknown(f"the connection to Postgres at {self._where} broke") from error
                raise Unavailable(f"Postgres at {self._where} is away ({describe(error)})") from error
            case _ if transient(error):
                raise Unavailable(f"Postgres at {self._where}: {error}") from error


def lost_connection(error: BaseException | None) -> bool:
    """Whether the connection is gone, as asyncpg shows it (measured over kills, restarts, promotions
    and black holes: 08xxx, 57P0x, 25006, InterfaceError, InternalClientError, OSError, time-outs)."""
    match error:
        case asyncpg.PostgresConnectionError() | asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return not isinstance(error, asyncpg.InterfaceWarning)
        case asyncpg.AdminShutdownError() | asyncpg.CrashShutdownError() | asyncpg.CannotConnectNowError():
            return True
        case asyncpg.ReadOnlySQLTransactionError() | OSError() | TimeoutError():
            return True
        case _:
            return False


def transient(error: BaseException | None) -> bool:
    """Whether the same statement may succeed when it is sent again; nothing of it was stored."""
    return isinstance(
        error,
        asyncpg.SerializationError
        | asyncpg.DeadlockDetectedError
        | asyncpg.LockNotAvailableError
        | asyncpg.TooManyConnectionsError
        | asyncpg.InsufficientResourcesError
        | asyncpg.QueryCanceledError,
    )


def describe(error: BaseException | None) -> str:
    """The class and the text of a driver's error, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any] | None]:
    """Rows as `width` parallel lists, the shape in which unnest() takes them.

    A column of nothing but None is None: unnest() fills it up with nulls, and the driver is spared a look
    at every element (a third of a microsecond each).
    """
    if not rows:
        return [[] for _ in range(width)]
    return [None if column.count(None) == len(rows) else list(column) for column in zip(*rows, strict=True)]
