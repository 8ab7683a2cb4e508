"""What the HTTP bridge answers: receipts as JSON, refusals as problems (RFC 9457)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import assert_never

from aiohttp import web

from ...core.errors import BadMessage
from ...core.job import Json
from ...core.message import Fate, Message, Receipt

RETRY_AFTER = 1
"""Seconds that a sender is asked to wait when we cannot store its message now."""

_HINTS = {
    "no_credentials": "send `Authorization: Bearer <token>` with the token of this bridge",
    "no_signature": "sign the request with the secret of this bridge",
    "bad_token": "check the token; it is the one in the setting `token` or `token_file`",
    "bad_signature": "check the secret, that the body is signed as it is sent, and the sender's clock",
    "method_not_allowed": "send a POST",
    "too_large": "send less, or raise the setting `max_body`",
    "batch_too_long": "send fewer messages, or raise the setting `max_batch`",
    "no_identity": "send an Idempotency-Key header, the same one on every try",
    "busy": "send the request again after the time in Retry-After",
    "not_stored": "send the request again with the same Idempotency-Key",
    "bad_cloud_event": "send id, source, type and specversion 1.0, as the CloudEvents HTTP binding says",
    "unsupported_content_type": "send application/json, application/x-ndjson or a CloudEvent as JSON",
}

Answer = asyncio.Future[Receipt | None]
"""What a request waits for: the receipt of its message, or None when it was given back."""


class Refused(Exception):
    """A request is answered with a problem (RFC 9457) and nothing of it is stored."""

    def __init__(self, status: int, reason: str, detail: str, **headers: str) -> None:
        super().__init__(f"{status} {reason}: {detail}")
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def come_again(reason: str, detail: str) -> Refused:
    return Refused(503, reason, detail, Retry_After=str(RETRY_AFTER))


def _result(message: Message | BadMessage, answer: Answer | None) -> dict[str, Json]:
    """What became of one message, as JSON; `status` is a Fate, `refused` or `not_stored`."""
    if isinstance(message, BadMessage):
        return {"status": "refused", "reason": message.reason, "detail": message.detail}
    receipt = None if answer is None or answer.cancelled() else answer.result()
    if receipt is None:
        return {"status": "not_stored", "reason": "not_stored", "detail": "it was not stored in time"}
    match receipt.fate:
        case Fate.STORED | Fate.DUPLICATE:
            return {"status": str(receipt.fate), "job_id": receipt.job_id and str(receipt.job_id)}
        case Fate.FILTERED:
            return {"status": str(receipt.fate)}
        case Fate.DEAD_LETTERED:
            return {
                "status": str(receipt.fate),
                "reason": receipt.reason,
                "detail": receipt.detail,
                "dead_letter_id": receipt.dead_letter_id and str(receipt.dead_letter_id),
            }
        case _:
            assert_never(receipt.fate)


def single_response(message: Message, answer: Answer) -> web.Response:
    result = _result(message, answer)
    match result["status"]:
        case "not_stored":
            return problem(503, "not_stored", result["detail"], headers={"Retry-After": str(RETRY_AFTER)})
        case "dead_lettered":
            return problem(422, result["reason"], result["detail"], dead_letter_id=result["dead_letter_id"])
        case "stored":
            return web.json_response(result, status=202)
        case _:
            return web.json_response(result)


def batch_response(messages: Sequence[Message | BadMessage], answers: Sequence[Answer]) -> web.Response:
    """202 or 200 when all went well, 503 when any is to be sent again, else 207; one result a message."""
    left = iter(answers)
    results = [_result(message, next(left) if isinstance(message, Message) else None) for message in messages]
    statuses = {result["status"] for result in results}
    if "not_stored" in statuses:
        return problem(
            503,
            "not_stored",
            "not every message was stored in time",
            headers={"Retry-After": str(RETRY_AFTER)},
            results=results,
        )
    if statuses & {"refused", "dead_lettered"}:
        return web.json_response({"results": results}, status=207)
    return web.json_response({"results": results}, status=202 if "stored" in statuses else 200)


def problem(
    status: int, reason: str, detail: str | None, *, headers: dict[str, str] | None = None, **more: Json
) -> web.Response:
    """An RFC 9457 problem; `reason` is our stable code."""
    members: dict[str, Json] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail or "",
        "reason": reason,
    }
    if reason in _HINTS:
        members["hint"] = _HINTS[reason]
    return web.json_response(
        members | more, status=status, headers=headers, content_type="application/problem+json"
    )
