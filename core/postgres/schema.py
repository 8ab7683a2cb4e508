"""The schema's migrations: plain SQL, ordered, forward only, safe from many processes and when killed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from importlib.resources import files

from ..errors import Misconfigured
from .database import Connection, Database, mapped_errors

OLDEST_POSTGRES = 15

REMEDY = ": run `hammerwork migrate`"
"""How the faults end that a migration mends."""

_LOCK = 0x68616D6D6572776B
"""Key of the transaction-level advisory lock under which one process migrates ("hammerwk")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file of core/sql/migrations, named NNNN_what_it_does.sql."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A migration that the database has."""

    version: int
    name: str
    checksum: str
    at: datetime


def migrations() -> list[Migration]:
    """Every migration this version of the package carries, in order."""
    folder = files("hammerwork.core") / "sql" / "migrations"
    found = [
        Migration(version=int(entry.name[:4]), name=entry.name[5:-4], sql=entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    ]
    return sorted(found, key=lambda migration: migration.version)


async def migrate(database: Database) -> list[Migration]:
    """Bring the schema up to date; returns what was applied (nothing: it was).

    Each migration is one transaction with its own row in hammerwork.migrations, under an advisory lock:
    many processes may call this at once, and one that is killed half-way leaves nothing behind.
    """
    applied = []
    for migration in migrations():
        async with database.transaction() as connection:
            await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
            if migration.version == 1:
                await _prepare(connection)
            known = await _applied(connection)
            _refuse_foreign(known)
            if migration.version not in known:
                # A busy table must not make everybody else queue behind our wait for its lock.
                await connection.execute("set local lock_timeout = '5s'")
                await connection.execute(migration.sql)
                await connection.execute(
                    "insert into hammerwork.migrations (version, name, checksum) values ($1, $2, $3)",
                    migration.version,
                    migration.name,
                    migration.checksum,
                )
                applied.append(migration)
    return applied


async def verify(database: Database) -> list[str]:
    """What is wrong with the schema and the server, as sentences; nothing means all is well."""
    async with database.acquire() as connection:
        with mapped_errors(database.where, sent=False):
            exists = await connection.fetchval("select to_regclass('hammerwork.migrations') is not null")
            if not exists:
                return [f"the schema does not exist{REMEDY}"]
            known = await _applied(connection)
            return [*_drift(known), *await _server_faults(connection)]


async def require_current(database: Database) -> None:
    """Raise Misconfigured unless every migration of this version is applied, and none of a newer one."""
    faults = [fault for fault in await verify(database) if "migrate" in fault]
    if faults:
        raise Misconfigured("; ".join(faults), hint="run `hammerwork migrate`")


async def _prepare(connection: Connection) -> None:
    version = int(await connection.fetchval("select current_setting('server_version_num')")) // 10_000
    if version < OLDEST_POSTGRES:
        raise Misconfigured(f"Postgres {version} is too old", hint=f"use Postgres {OLDEST_POSTGRES} or newer")
    await connection.execute(
        "create schema if not exists hammerwork;"
        "create table if not exists hammerwork.migrations ("
        " version integer primary key, name text not null, checksum text not null,"
        " at timestamptz not null default now())"
    )


async def _applied(connection: Connection) -> dict[int, Applied]:
    rows = await connection.fetch("select version, name, checksum, at from hammerwork.migrations")
    return {row["version"]: Applied(**row) for row in rows}


def _refuse_foreign(known: dict[int, Applied]) -> None:
    newest = max((m.version for m in migrations()), default=0)
    newer = [version for version in known if version > newest]
    if newer:
        raise Misconfigured(
            f"the schema has migration {max(newer)}, which this version of hammerwork does not know",
            hint="upgrade hammerwork; schemas only go forward",
        )


def _drift(known: dict[int, Applied]) -> list[str]:
    faults = []
    try:
        _refuse_foreign(known)
    except Misconfigured as newer:
        faults.append(f"{newer} and cannot migrate back: {newer.hint}")
    for migration in migrations():
        applied = known.get(migration.version)
        if applied is None:
            faults.append(f"migration {migration.version:04} {migration.name} is missing{REMEDY}")
        elif applied.checksum != migration.checksum:
            faults.append(
                f"migration {migration.version:04} was applied from another text than this version carries"
            )
    return faults


async def _server_faults(connection: Connection) -> list[str]:
    faults = [
        f"{row['name']} is off: a crash of the server loses acknowledged work"
        for row in await connection.fetch(
            "select name from pg_settings where setting = 'off'"
            " and name in ('fsync', 'full_page_writes', 'synchronous_commit')"
        )
    ]
    ahead = await connection.fetchval(
        "select string_agg(name, ', ' order by name) from hammerwork.sinks"
        " where position_xid > pg_snapshot_xmax(pg_current_snapshot())"
    )
    if ahead:
        faults.append(
            f"the position of the sinks {ahead} is ahead of this server's transactions: the database was"
            " restored from another one; `hammerwork sink remove NAME` lets each begin anew, `hammerwork sink"
            " replay NAME --since` sends what may be missing"
        )
    for table in ("history", "attempts", "events", "deliveries"):
        tomorrow = await connection.fetchval(
            "select to_regclass('hammerwork.' || $1 || to_char(current_date + 1, '_YYYYMMDD')) is null", table
        )
        if tomorrow:
            faults.append(f"{table} has no partition for tomorrow: is a gateway or worker running?")
    return faults
