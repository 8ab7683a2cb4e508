"""`[sinks.NAME]`: what every sink may be told, whatever its type."""

from __future__ import annotations

from datetime import timedelta
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, SerializeAsAny

from ...core.event import EventType
from ...core.publish.deliver import STANDARD_SCHEDULE
from .section import Delay, Positive, Section

DEFAULT_EVENTS = (
    EventType.COMPLETED,
    EventType.FAILED,
    EventType.DEAD,
    EventType.CANCELLED,
    EventType.MESSAGE_DEAD_LETTERED,
    EventType.SINK_DISABLED,
)


def _known_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in EventType):
            close = get_close_matches(pattern, [str(name) for name in EventType], n=1)
            raise ValueError(
                f"{pattern!r} is no event; "
                + (f"did you mean {close[0]!r}?" if close else f"there are {', '.join(EventType)}")
            )
    return patterns


class SinkSettings(Section):
    """`[sinks.NAME]`: what every sink may be told; the options of its type stand beside these."""

    type: str
    enabled: bool = True
    events: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known_patterns)] = DEFAULT_EVENTS
    """Types or patterns such as `job.*`."""
    queues: tuple[str, ...] = ()
    """Only events of jobs in queues that match one of these globs; none: all."""
    filter: str | None = None
    """A CEL expression over the event that must be true."""
    source: str = Field(default="/hammerwork", min_length=1)
    """The `source` of its CloudEvents."""
    retry: Annotated[tuple[Delay, ...], Field(min_length=1)] = STANDARD_SCHEDULE.delays
    """The delays after failed tries; after the last one the delivery is dead. This and what follows is for
    sinks that take events one by one: those that read the log try again until they are through."""
    disable_after: Positive = timedelta(days=5)
    """A sink of which nothing was taken for so long is disabled until somebody resumes it."""
    concurrency: int = Field(default=10, ge=1, le=1000)
    """Deliveries to this sink at once, in this process."""
    options: SerializeAsAny[BaseModel]

    @property
    def types(self) -> frozenset[EventType]:
        return frozenset(t for t in EventType if any(fnmatchcase(t, pattern) for pattern in self.events))
