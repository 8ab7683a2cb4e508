"""`hammerwork check`: connect to everything that is configured, and say what holds and why."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from ..clients.schemas.options import RegistryOptions
from ..core import operate
from ..core.errors import HammerworkError, Misconfigured
from ..core.event import AnySink
from ..core.job import Json
from ..core.message import EXACTLY_ONCE, Bridge, Guarantee
from ..core.postgres import schema
from ..core.postgres.database import Database, mapped_errors
from ..core.postgres.notifier import SELF_TEST_WITHIN, Notifier
from .embedded import dsn_of
from .http import admitted_parts
from .settings import Settings

ANSWER_WITHIN = timedelta(seconds=20)

Verdict = Literal["ok", "warning", "fault"]
MARKS: dict[Verdict, str] = {"ok": "✓", "warning": "!", "fault": "✗"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one thing: its verdict in one line, and more lines where there is more to say."""

    subject: str
    verdict: Verdict
    summary: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """All findings; `exit_code` is 0 unless one of them is a fault."""

    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        return int(any(finding.verdict == "fault" for finding in self.findings))

    def text(self) -> str:
        """For people: a line a finding, its details beneath."""
        width = max((len(finding.subject) for finding in self.findings), default=0)
        lines = []
        for finding in self.findings:
            lines.append(f"{MARKS[finding.verdict]} {finding.subject:<{width}}  {finding.summary}")
            lines += [f"  {'':<{width}}  {detail}" for detail in finding.details]
        return "\n".join(lines)

    def json(self) -> Json:
        """For programs."""
        return {
            "ok": self.exit_code == 0,
            "findings": [
                {
                    "subject": finding.subject,
                    "verdict": finding.verdict,
                    "summary": finding.summary,
                    "details": list(finding.details),
                }
                for finding in self.findings
            ],
        }


async def check(settings: Settings) -> Report:
    """Connect to the database, every enabled bridge and every enabled sink, changing nothing.

    Raises Misconfigured for settings of which nothing can be built, and MissingExtra.
    """
    parts = admitted_parts(settings)
    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(dsn_of(settings.database))
        database = Database(
            dsn, size=2, application_name="hammerwork-check",
            prepared_statements=settings.database.prepared_statements,
        )  # fmt: skip
        stack.push_async_callback(database.close)
        findings = await _check_database(database, migrates=settings.database.migrate)
        stopped = await _stopped(database)
    promises = [
        _promise(f"bridge {name}", ingest.bridge, stopped, exactly_once=ingest.limits.exactly_once)
        for name, ingest in parts.ingests.items()
    ]
    promises += [
        _promise(f"sink {name}", outlet.sink, stopped, exactly_once=False)
        for name, outlet in parts.outlets.items()
    ]
    promises += [
        _schemas(name, bridge.decode.registry)
        for name, bridge in settings.bridges.items()
        if bridge.enabled and bridge.decode.registry is not None
    ]
    return Report((*findings, *await asyncio.gather(*promises)))


async def _check_database(database: Database, *, migrates: bool) -> list[Finding]:
    try:
        async with asyncio.timeout(ANSWER_WITHIN.total_seconds()):
            version = await _version(database)
            faults = await schema.verify(database)
            heard = await _hears(database)
    except (HammerworkError, TimeoutError) as error:
        return [_fault("database", error)]
    found = [Finding(subject="database", verdict="ok", summary=f"Postgres {version} at {database.where}")]
    found.append(_schema(faults, migrates=migrates))
    if heard:
        found.append(Finding(subject="notifications", verdict="ok", summary="LISTEN hears NOTIFY"))
    else:
        found.append(
            Finding(
                subject="notifications",
                verdict="warning",
                summary="LISTEN hears nothing; work starts up to a poll later",
                details=("behind a pooler in transaction mode, give the gateway a direct connection",),
            )
        )
    return found


def _schema(faults: list[str], *, migrates: bool) -> Finding:
    if not faults:
        return Finding(subject="schema", verdict="ok", summary="is current")
    if migrates and all(fault.endswith(schema.REMEDY) for fault in faults):
        summary = "not current; nothing to do: the gateway migrates it at start (database.migrate)"
        details = tuple(fault.removesuffix(schema.REMEDY) for fault in faults)
        return Finding(subject="schema", verdict="warning", summary=summary, details=details)
    summary = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
    return Finding(subject="schema", verdict="fault", summary=summary, details=tuple(faults))


async def _version(database: Database) -> str:
    async with database.acquire() as connection:
        with mapped_errors(database.where, sent=False):
            return str(await connection.fetchval("show server_version")).split()[0]


async def _hears(database: Database) -> bool:
    """Whether a NOTIFY comes back to a LISTEN, by the notifier's own self-test."""
    notifier = Notifier(database)
    listening = asyncio.create_task(notifier.run(), name="notifier")
    deadline = time.monotonic() + SELF_TEST_WITHIN + 1
    try:
        while not notifier.hears and time.monotonic() < deadline:
            await asyncio.wait({listening}, timeout=0.02)
        return notifier.hears
    finally:
        listening.cancel()
        await asyncio.wait({listening})


async def _stopped(database: Database) -> dict[str, str]:
    """Bridges and sinks that take nothing at present, and why; none where the database cannot say."""
    try:
        bridges, sinks = await operate.bridges(database), await operate.sinks(database)
    except HammerworkError:
        return {}
    found = {f"bridge {b.name}": f"{b.state}: {b.pause_reason}" for b in bridges if b.state != "active"}
    found |= {f"sink {s.name}": f"{s.state}: {s.reason}" for s in sinks if s.state != "active"}
    return {subject: why.removesuffix(": ").removesuffix(": None") for subject, why in found.items()}


async def _promise(
    subject: str, part: Bridge | AnySink, stopped: Mapping[str, str], *, exactly_once: bool
) -> Finding:
    try:
        async with asyncio.timeout(ANSWER_WITHIN.total_seconds()):
            found = await part.guarantee()
    except Exception as error:
        return _fault(subject, error)
    if (why := stopped.get(subject)) is not None:
        resume = f"it is {why}; `hammerwork {subject.replace(' ', ' resume ')}` lets it go on"
        found = replace(found, warnings=(*found.warnings, resume))
    return _judged(subject, found, exactly_once)


async def _schemas(bridge: str, options: RegistryOptions) -> Finding:
    """Whether the registry of a bridge answers. A sink's own guarantee asks for its subject."""
    from ..clients.schemas.registry import Registry  # with aiohttp, as in decoding.py

    subject = f"schemas of {bridge}"
    try:
        async with asyncio.timeout(ANSWER_WITHIN.total_seconds()):
            await Registry(options).look()
    except (HammerworkError, TimeoutError) as error:
        return _fault(subject, error)
    return Finding(subject=subject, verdict="ok", summary=f"the registry at {options.url} answers")


def _judged(subject: str, found: Guarantee, exactly_once: bool) -> Finding:
    details = [f"because {found.because}", *(f"warning: {warning}" for warning in found.warnings)]
    if exactly_once and found.level != EXACTLY_ONCE:
        details.append("the settings ask for guarantee = 'exactly_once': the bridge will be held")
        return Finding(subject=subject, verdict="fault", summary=found.level, details=tuple(details))
    verdict: Verdict = "warning" if found.warnings else "ok"
    return Finding(subject=subject, verdict=verdict, summary=found.level, details=tuple(details))


def _fault(subject: str, error: BaseException) -> Finding:
    hint = "is it running, and is its address in the settings right?"
    if isinstance(error, Misconfigured):
        hint = error.hint
    if isinstance(error, TimeoutError):
        summary = f"no answer within {ANSWER_WITHIN.total_seconds():g} s"
    elif isinstance(error, HammerworkError):
        summary = str(error)
    else:
        summary = f"{type(error).__name__}: {error}"
    return Finding(subject=subject, verdict="fault", summary=summary, details=(hint,) if hint else ())
