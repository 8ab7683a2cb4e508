"""The fields of a job as messages, expressions and functions may give them: read strictly, each
refusal with its own reason."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from ..errors import BadMessage
from ..identity import slot_for
from ..job import QUEUE_NAME, Json, Priority
from ..message import Message
from .decode import check_storable

FARTHEST = timedelta(days=3653)
"""Ten years: what lies further from now, either way, is a mistake in units."""

MAX_HEADERS = 1000
_COUNTED = 1 << 64
MAX_CORRELATION_ID = 512
"""Characters."""

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_TRACESTATE = re.compile(
    r"[ \t]*([a-z0-9][-a-z0-9_*/@]{0,255}=[ -+\--<>-~]{1,256})?"
    r"([ \t]*,[ \t]*([a-z0-9][-a-z0-9_*/@]{0,255}=[ -+\--<>-~]{1,256})?)*"
)


def slot_of_message(message: Message, bridge: str) -> int | None:
    """The slot of the job of this message: by its key, else by its identity, else any."""
    if message.key:
        return slot_for(message.key)
    if message.id:
        return slot_for(bridge, message.id)
    return None


def origin_of(message: Message, bridge: str) -> dict[str, Json]:
    """What a job remembers of its message. Raises BadMessage for what Postgres cannot store."""
    coordinates = storable_coordinates(message)
    return {"bridge": bridge, "message_id": message.id, "coordinates": coordinates}


def storable_coordinates(message: Message) -> dict[str, Json]:
    """Where the message was; raises BadMessage unless Postgres can store that and its id."""
    coordinates = message.coordinates
    if type(coordinates) is not dict:
        coordinates = dict(coordinates)
    if not _flat(coordinates):
        check_storable(coordinates, "the coordinates")
    if message.id is not None:
        check_storable(message.id, "the message id")
    return coordinates


def _flat(members: Mapping[str, Json]) -> bool:
    """Whether these are ASCII texts, numbers that a broker counts in, and the like, which Postgres can store:
    told at a third of what `check_storable` costs, which says of others what is wrong with them."""
    for name, value in members.items():
        kind = type(value)
        if type(name) is not str or not name.isascii() or "\0" in name:
            return False
        if kind is str:
            if not value.isascii() or "\0" in value:
                return False
        elif kind is int:
            if not -_COUNTED < value < _COUNTED:
                return False
        elif kind is not bool and value is not None:
            return False
    return True


def carried_headers(headers: Mapping[str, Json]) -> Mapping[str, Json]:
    """The headers themselves when a job may carry them; raises BadMessage."""
    if len(headers) > MAX_HEADERS:
        raise BadMessage("bad_headers", f"{len(headers)} headers; {MAX_HEADERS} are allowed")
    if headers:
        check_storable(dict(headers), "the headers")
    return headers


def carried_trace(headers: Mapping[str, Json]) -> tuple[str | None, str | None]:
    """traceparent and tracestate (W3C Trace Context, level 2); what is malformed counts as absent."""
    parent = headers.get("traceparent")
    if not isinstance(parent, str) or _TRACEPARENT.fullmatch(parent) is None:
        return None, None
    if (parent.startswith("00") and len(parent) != 55) or len(parent) > 512:
        return None, None
    state = headers.get("tracestate")
    if not isinstance(state, str) or not state or len(state) > 512 or _TRACESTATE.fullmatch(state) is None:
        return parent, None
    return parent, state


def broker_priority(priority: int | None) -> Priority:
    """A broker's 0 to 9, in pairs."""
    return Priority.NORMAL if priority is None else Priority(max(0, min(priority // 2, 4)))


def read_queue(value: Json) -> str:
    if not isinstance(value, str) or QUEUE_NAME.fullmatch(value) is None:
        raise BadMessage("bad_queue_name", printable(repr(value)[:100]))
    return value


def read_priority(value: Json) -> Priority:
    match value:
        case bool():
            pass
        case int() if 0 <= value <= 4:
            return Priority(value)
        case str() if value.upper() in Priority.__members__ and value.islower():
            return Priority[value.upper()]
    names = ", ".join(priority.name.lower() for priority in Priority)
    raise BadMessage("bad_priority", printable(f"{repr(value)[:100]}; 0 to 4 or {names} are known"))


def read_run_at(value: Json) -> datetime:
    match value:
        case datetime():
            at = value
        case str() if _RFC3339.fullmatch(value) is not None:
            try:
                at = datetime.fromisoformat(value.upper())
            except ValueError as error:
                raise BadMessage("bad_run_at", printable(f"{value[:100]}: {error}")) from error
        case _:
            raise BadMessage("bad_run_at", printable(f"{repr(value)[:100]} is not RFC 3339 with a time zone"))
    if at.tzinfo is None:
        raise BadMessage("bad_run_at", f"{at.isoformat()} has no time zone")
    if abs(at - datetime.now(UTC)) > FARTHEST:
        raise BadMessage("bad_run_at", f"{at.isoformat()} is more than ten years from now")
    return at


def read_delay(value: Json) -> timedelta:
    return _span("bad_delay", value, least=timedelta(0))


def read_timeout(value: Json) -> timedelta:
    return _span("bad_timeout", value, least=timedelta(milliseconds=1))


def _span(reason: str, value: Json, *, least: timedelta) -> timedelta:
    match value:
        case timedelta():
            seconds = value.total_seconds()
        case bool():
            seconds = math.nan
        case int() | float():
            seconds = value
        case _:
            seconds = math.nan
    if not least.total_seconds() <= seconds <= FARTHEST.total_seconds():
        raise BadMessage(
            reason, printable(f"{repr(value)[:100]} is not {least.total_seconds():g} s to ten years")
        )
    return timedelta(seconds=seconds)


def read_max_attempts(value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 32_767:
        raise BadMessage("bad_max_attempts", printable(f"{repr(value)[:100]} is not 1 to 32767"))
    return value


def read_correlation_id(value: Json) -> str | None:
    if value is None:
        return None
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or len(text) > MAX_CORRELATION_ID:
        raise BadMessage("bad_correlation_id", f"not text of at most {MAX_CORRELATION_ID} characters")
    check_storable(text, "the correlation id")
    return text


def printable(text: str, limit: int = 500) -> str:
    """Text from outside as Postgres and a terminal can take it."""
    cut = text[:limit].encode("utf-8", "backslashreplace").decode()
    return cut.replace("\0", "\\0")
