"""Draft: a job in outline, as a transform found it in a message; the bridge's settings say the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..job import Json, Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a transform answers that knows more of a job than its payload, and does not know its queue.

    `payload`, `headers` and `correlation_id` take the place of the message's own, also for expressions, which
    name the payload `body`. What is None is left to the message, the expressions and the settings; where an
    expression gives a field, the expression counts.
    """

    payload: Json
    headers: Mapping[str, Json] | None = None
    correlation_id: str | None = None
    priority: Priority | None = None
    run_at: datetime | None = None
    max_attempts: int | None = None
    timeout: timedelta | None = None
