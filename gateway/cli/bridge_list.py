"""The bridges as `bridge list` shows them: what the settings say, and what the database knows of each."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from ...core import operate
from ...core.errors import Misconfigured, Unavailable
from ...core.operate import BridgeRecord
from ..settings import load
from ..settings.bridges import BridgeSettings
from .output import Columns, note
from .session import talk


class ListedBridge(BaseModel):
    """One bridge. What a bridge has that is not in these settings, only its gateway knows."""

    name: str
    type: str
    state: Literal["active", "paused", "disabled", "unopened", "unconfigured", "unknown"]
    to_queue: str | None
    required: bool | None
    paused_at: datetime | None
    pause_reason: str | None
    seen_at: datetime | None


COLUMNS: Columns[ListedBridge] = {
    "name": lambda bridge: bridge.name,
    "type": lambda bridge: bridge.type,
    "state": lambda bridge: bridge.state,
    "to queue": lambda bridge: bridge.to_queue,
    "opened": lambda bridge: bridge.seen_at,
    "reason": lambda bridge: bridge.pause_reason,
}


def listed(config: Path | None) -> list[ListedBridge]:
    """The settings' bridges, then those that only the database knows. Without a database, a note says so."""
    settings = load(config)
    known: dict[str, BridgeRecord] | None
    try:
        records = talk(config, lambda session: operate.bridges(session.database))
        known = {record.name: record for record in records}
    except (Unavailable, Misconfigured) as error:
        note(f"note: which of them are paused is not known: {error}")
        known = None
    ours = [_of(name, bridge, known) for name, bridge in settings.bridges.items()]
    return ours + [_of(name, None, known) for name in known or () if name not in settings.bridges]


def _of(name: str, bridge: BridgeSettings | None, known: dict[str, BridgeRecord] | None) -> ListedBridge:
    record = None if known is None else known.get(name)
    return ListedBridge(
        name=name,
        type=bridge.type if bridge is not None else record.kind if record is not None else "",
        state=_state(bridge, record, answered=known is not None),
        to_queue=None if bridge is None else bridge.fixed_queue(name) or bridge.map.queue,
        required=None if bridge is None else bridge.required,
        paused_at=None if record is None else record.paused_at,
        pause_reason=None if record is None else record.pause_reason,
        seen_at=None if record is None else record.seen_at,
    )


def _state(
    bridge: BridgeSettings | None, record: BridgeRecord | None, *, answered: bool
) -> Literal["active", "paused", "disabled", "unopened", "unconfigured", "unknown"]:
    if bridge is not None and not bridge.enabled:
        return "disabled"
    if record is None:
        return "unopened" if answered else "unknown"
    if record.paused_at is not None:
        return "paused"
    return "unconfigured" if bridge is None else "active"
