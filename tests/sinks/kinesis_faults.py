"""An HTTP proxy in front of a Kinesis endpoint that stores a part of a PutRecords and throttles the rest."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

PUT = "Kinesis_20131202.PutRecords"
THROTTLED = {
    "ErrorCode": "ProvisionedThroughputExceededException",
    "ErrorMessage": "Rate exceeded for shard shardId-000000000000",
}
FAILED = {"ErrorCode": "InternalFailure", "ErrorMessage": "Internal Service Failure"}


class FaultyKinesis:
    """`partial`: the share of records that are not stored. `whole`: every so many-th PutRecords is refused as
    a whole (400, throttled). `lost`: every so many-th is stored without an answer. 0: none."""

    def __init__(self, endpoint: str, *, partial: float = 0.0, whole: int = 0, lost: int = 0) -> None:
        self.endpoint = endpoint
        self.partial, self.whole, self.lost = partial, whole, lost
        self.failing = 0
        """How many of the next records are not stored, whatever the dice say."""
        self.counts: Counter[str] = Counter()
        self.requests: list[list[str]] = []
        """The partition keys of each PutRecords."""
        self.successor: tuple[str, str] | None = None
        """A shard that was split, and the name under which what is put there is told to be: the emulator goes
        on writing to closed shards."""
        self.url = ""
        self._dice = random.Random(11)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FaultyKinesis]:
        async with aiohttp.ClientSession(auto_decompress=False) as self._session:
            application = web.Application(client_max_size=16 * 1024 * 1024)
            application.router.add_post("/{path:.*}", self._answer)
            runner = web.AppRunner(application, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                yield self
            finally:
                await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("X-Amz-Target") != PUT:
            return await self._forward(request, body)
        asked = json.loads(body)
        records = asked["Records"]
        self.requests.append([record["PartitionKey"] for record in records])
        if self.whole and len(self.requests) % self.whole == 0:
            self.counts["whole"] += 1
            refusal = {"__type": "ProvisionedThroughputExceededException", "message": "Rate exceeded"}
            return web.json_response(refusal, status=400, content_type="application/x-amz-json-1.1")
        kept = [self._is_kept() for _ in records]
        self.counts["partial"] += kept.count(False)
        answers: list[Any] = [self._dice.choice([THROTTLED, FAILED]) for _ in records]
        if any(kept):
            asked["Records"] = [r for r, keep in zip(records, kept, strict=True) if keep]
            stored = json.loads(await self._ask(request, json.dumps(asked).encode()))
            for told in stored["Records"]:
                if self.successor is not None and told["ShardId"] == self.successor[0]:
                    told["ShardId"] = self.successor[1]
            told_of = iter(stored["Records"])
            answers = [next(told_of) if keep else a for a, keep in zip(answers, kept, strict=True)]
        if self.lost and len(self.requests) % self.lost == 0:
            self.counts["lost"] += 1
            if request.transport is not None:
                request.transport.abort()
            await asyncio.sleep(0)
        put = {"FailedRecordCount": kept.count(False), "Records": answers}
        return web.json_response(put, content_type="application/x-amz-json-1.1")

    def _is_kept(self) -> bool:
        if self.failing:
            self.failing -= 1
            return False
        return self._dice.random() >= self.partial

    async def _ask(self, request: web.Request, body: bytes) -> bytes:
        answer = await self._forward(request, body)
        assert isinstance(answer.body, bytes)
        return answer.body

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "content-length")}
        async with self._session.post(self.endpoint + request.path, data=body, headers=headers) as answer:
            return web.Response(
                status=answer.status, body=await answer.read(), content_type=answer.content_type
            )
