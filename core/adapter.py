"""The caller's own transaction: asyncpg, SQLAlchemy and psycopg connections behind one `fetch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from .errors import Misconfigured
from .postgres.store import Fetcher, Row

SUPPORTED = "asyncpg Connection, psycopg AsyncConnection, SQLAlchemy AsyncConnection or AsyncSession"


async def adapted(connection: object) -> Fetcher:
    """The caller's connection as something that runs our statements in the caller's transaction.

    The libraries are told apart by the module of the object's class, so that none of them is imported
    for callers who do not use it. Raises Misconfigured for anything else.
    """
    if isinstance(connection, asyncpg.Connection | PoolConnectionProxy):
        return connection
    match _family(connection):
        case "sqlalchemy":
            return await _from_sqlalchemy(connection)
        case "psycopg":
            return _Psycopg(connection)
        case _:
            raise _refused(connection)


def _refused(connection: object) -> Misconfigured:
    return Misconfigured(f"conn= cannot be a {type(connection).__qualname__}", hint=f"give an {SUPPORTED}")


def _family(connection: object) -> str:
    modules = [kind.__module__ for kind in type(connection).__mro__]
    if any(module.startswith("sqlalchemy.ext.asyncio.") for module in modules):
        return "sqlalchemy"
    return "psycopg" if any(module.partition(".")[0] == "psycopg" for module in modules) else ""


async def _from_sqlalchemy(connection: Any) -> Fetcher:
    if not hasattr(connection, "exec_driver_sql"):
        if not callable(getattr(type(connection), "connection", None)):
            raise _refused(connection)
        connection = await connection.connection()  # AsyncSession
    # SQLAlchemy sends BEGIN with its own first statement only; ours must not run before it.
    await connection.exec_driver_sql("select 1")
    driver = (await connection.get_raw_connection()).driver_connection
    return await adapted(driver)


class _Psycopg:
    """psycopg's raw cursor takes the $1 placeholders of our statements as they are."""

    def __init__(self, connection: Any) -> None:
        import psycopg
        from psycopg.rows import dict_row

        if not isinstance(connection, psycopg.AsyncConnection):
            raise _refused(connection)
        self._cursor = psycopg.AsyncRawCursor(connection, row_factory=dict_row)

    async def fetch(self, query: str, /, *arguments: object) -> Sequence[Row]:
        await self._cursor.execute(query.encode(), list(arguments))
        return await self._cursor.fetchall() if self._cursor.description else []
