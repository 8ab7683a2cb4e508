"""What applications write by mistake: functions for CallableMapping that go wrong as the body says."""

from __future__ import annotations

import asyncio
from typing import Any

from hammerwork.core.errors import BadMessage
from hammerwork.core.job import Job, Json
from hammerwork.core.message import Message


class Circular(dict[str, Any]):
    """A dict that holds itself."""

    def __init__(self) -> None:
        super().__init__()
        self["self"] = self


def _recurse(depth: int) -> int:
    return _recurse(depth + 1) + 1


async def misbehave(message: Message, body: Json) -> object:
    """Answers the body itself unless it has a key `do`."""
    match body.get("do"):
        case None:
            return body
        case "raise":
            raise ValueError("\0 and \ud800 and \x1b[31m")
        case "exit":
            raise SystemExit(3)
        case "recurse":
            return _recurse(0)
        case "hang":
            await asyncio.sleep(3600)
        case "refuse oddly":
            raise BadMessage("an odd\0 reason \ud800" * 50, "\0" * 5000)
        case "number":
            return 7
        case "bytes":
            return b"{}"
        case "circular":
            return Circular()
        case "set":
            return {"tags": {1, 2}}
        case "nan":
            return {"n": float("nan")}
        case "nul":
            return {"n": "\0"}
        case "surrogate":
            return {"n": "\ud800"}
        case "huge int":
            return {"n": 10**5000}
        case "odd key":
            return {1: "one"}
        case "sink":
            return Job("sink.webhook", body)
        case "huge priority":
            return Job("work", body, priority=99)  # type: ignore[arg-type]
        case "odd correlation":
            return Job("work", body, correlation_id="\0")
        case "odd trace":
            return Job("work", body, traceparent="\ud800")
        case "odd headers":
            return Job("work", body, headers={"n": "\0"})
    raise AssertionError(body)
