"""What SNS and EventBridge wrap around a message, taken off."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...core.errors import BadMessage
from ...core.job import Json
from .options import Unwrap

SNS_MARK = '"TopicArn"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwrapped:
    """The body that was meant. `id` is the envelope's; `headers` and `coordinates` are what it said."""

    body: bytes
    id: str | None = None
    headers: Mapping[str, Json] = field(default_factory=dict)
    coordinates: Mapping[str, Json] = field(default_factory=dict)


def unwrap(body: str, how: Unwrap) -> Unwrapped:
    """Take the envelope off. Raises BadMessage where there must be one and is not."""
    found: Unwrapped | None = None
    match how:
        case "none":
            return Unwrapped(body=encoded(body))
        case "auto":
            found = _sns(body) or Unwrapped(body=encoded(body))
        case "sns":
            found = _sns(body)
        case "eventbridge":
            found = _eventbridge(body)
    if found is None:
        raise BadMessage("no_envelope", f"the body is no {how} envelope")
    return found


def encoded(text: str) -> bytes:
    """UTF-8, with lone surrogates as bytes that the decoder will refuse by name."""
    return text.encode("utf-8", "surrogatepass")


def _sns(body: str) -> Unwrapped | None:
    """Of a notification without raw delivery. Its signature is not looked at: who may write to the queue is
    what the queue's policy says."""
    if SNS_MARK not in body:
        return None
    given = _object(body)
    match given:
        case {"Type": "Notification", "MessageId": str(id_), "TopicArn": str(topic), "Message": str(text)}:
            said: dict[str, Json] = {"topic": topic, "message_id": id_}
            for name in ("Subject", "Timestamp"):
                if isinstance(given.get(name), str):
                    said[name.lower()] = given[name]
            headers = _sns_headers(given.get("MessageAttributes"))
            return Unwrapped(body=encoded(text), id=id_, headers=headers, coordinates={"sns": said})
        case _:
            return None


def _sns_headers(attributes: Json) -> dict[str, Json]:
    headers: dict[str, Json] = {}
    if isinstance(attributes, dict):
        for name, attribute in attributes.items():
            match attribute:
                case {"Type": str(kind), "Value": str(value)}:
                    headers[name] = {"base64": value} if kind.startswith("Binary") else value
    return headers


def _eventbridge(body: str) -> Unwrapped | None:
    given = _object(body)
    match given:
        case {"id": str(id_), "detail-type": str(kind), "source": str(source), "detail": detail}:
            said: dict[str, Json] = {"id": id_, "detail_type": kind, "source": source}
            for name in ("account", "region", "time", "resources"):
                if name in given:
                    said[name] = given[name]
            text = json.dumps(detail, ensure_ascii=False, separators=(",", ":"))
            return Unwrapped(body=encoded(text), id=id_, coordinates={"eventbridge": said})
        case _:
            return None


def _object(body: str) -> dict[str, Json]:
    """The JSON object that a body is; an empty one where it is anything else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
