"""AwsProxy: an HTTP proxy before an AWS emulator that answers otherwise, fails entries or loses answers."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web

Json = dict[str, Any]
Forward = Callable[[Json], Awaitable[web.Response]]
"""Ask the emulator, with this body in place of the client's."""

Fault = Callable[[Json, Forward], Awaitable[web.StreamResponse]]


LONGEST_POLL = 0.1


class AwsProxy:
    """Listens on 127.0.0.1 (`endpoint`). Every call of an action meets the next fault that is planned for it,
    or goes through.

    The emulator sees one call at a time, and polls wait for a tenth of a second at most: of several calls
    at once moto hands out a group of a FIFO queue twice, and a poll that waits does not see that a group is
    free again.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._turn = asyncio.Lock()
        self._planned: dict[str, list[Fault]] = defaultdict(list)
        self._always: dict[str, Fault] = {}
        self._runner: web.AppRunner | None = None
        self._client: aiohttp.ClientSession
        self.endpoint = ""
        self.calls: dict[str, list[Json]] = defaultdict(list)
        """What was asked, by action."""
        self.handed_out: dict[str, str] = {}
        """The newest receipt handle of every message that the emulator handed out, whether or not its answer
        arrived."""

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=8 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._client = aiohttp.ClientSession(auto_decompress=False)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.endpoint = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        await self._client.close()

    def plan(self, action: str, *faults: Fault) -> None:
        """The next calls of `action` (`DeleteMessageBatch`, …; `GET`, … of S3) meet these, one each."""
        self._planned[action] += faults

    def always(self, action: str, fault: Fault | None) -> None:
        """Every call of `action` meets this one; None: no more."""
        self._always.pop(action, None)
        if fault is not None:
            self._always[action] = fault

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        action = request.headers.get("X-Amz-Target", request.method).partition(".")[2] or request.method
        raw = await request.read()
        asked: Json = json.loads(raw) if action != request.method else {}
        self.calls[action].append(asked)

        async def forward(body: Json) -> web.Response:
            if action == "ReceiveMessage":
                return await self._short_poll(request, body)
            return await self._forward(request, json.dumps(body).encode() if body else raw)

        if self._planned[action]:
            return await self._planned[action].pop(0)(asked, forward)
        if (fault := self._always.get(action)) is not None:
            return await fault(asked, forward)
        return await forward(asked)

    async def _short_poll(self, request: web.Request, body: Json) -> web.Response:
        wait = min(body.get("WaitTimeSeconds", 0), LONGEST_POLL)
        answer = await self._forward(request, json.dumps({**body, "WaitTimeSeconds": 0}).encode())
        messages = json.loads(answer.body or b"{}").get("Messages", [])  # type: ignore[arg-type]
        for message in messages:
            self.handed_out[message["MessageId"]] = message["ReceiptHandle"]
        if not messages:
            await asyncio.sleep(wait)
        return answer

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("content-length", "host")}
        url = self._target + request.raw_path
        async with (
            self._turn,
            self._client.request(request.method, url, data=body, headers=headers) as answer,
        ):
            kept = {
                k: v
                for k, v in answer.headers.items()
                if k.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server")
            }
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)


def answering(status: int, code: str, message: str = "") -> Fault:
    """An error in place of an answer."""

    async def fault(asked: Json, forward: Forward) -> web.StreamResponse:
        return web.json_response({"__type": f"com.amazonaws.sqs#{code}", "message": message}, status=status)

    return fault


def failing_entries(code: str, *places: int, done: bool = False) -> Fault:
    """Of a batch the entries at these places fail; with `done` they say so and were done all the same."""

    async def fault(asked: Json, forward: Forward) -> web.StreamResponse:
        failed = [entry for place, entry in enumerate(asked["Entries"]) if place in places]
        rest = [entry for place, entry in enumerate(asked["Entries"]) if place not in places or done]
        answer: Json = {"Successful": [], "Failed": []}
        if rest:
            answer |= json.loads((await forward({**asked, "Entries": rest})).body or b"{}")  # type: ignore[arg-type]
        ids = [entry["Id"] for entry in failed]
        answer["Successful"] = [entry for entry in answer.get("Successful", []) if entry["Id"] not in ids]
        sender = code in ("ReceiptHandleIsInvalid", "InvalidParameterValue")
        answer["Failed"] = [{"Id": i, "Code": code, "SenderFault": sender, "Message": "planned"} for i in ids]
        return web.json_response(answer, content_type="application/x-amz-json-1.0")

    return fault


def losing_the_answer() -> Fault:
    """It is done, and the client is not told."""

    async def fault(asked: Json, forward: Forward) -> web.StreamResponse:
        await forward(asked)
        raise asyncio.CancelledError  # aiohttp closes the connection without a word

    return fault


def rewriting(change: Callable[[Json], Json]) -> Fault:
    """The client is told something else than the emulator said."""

    async def fault(asked: Json, forward: Forward) -> web.StreamResponse:
        answer = json.loads((await forward(asked)).body or b"{}")  # type: ignore[arg-type]
        return web.json_response(change(answer), content_type="application/x-amz-json-1.0")

    return fault
