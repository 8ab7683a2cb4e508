"""A plain Redis client for the tests of the Redis plugin: it adds anything, and looks at what is left."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from hammerwork.plugins.redis import RedisOptions


class RedisStream:
    """A stream of the test's own, deleted at the end."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name
        self._client = Redis.from_url(url, protocol=2)
        self._client.response_callbacks.clear()

    async def ask(self, *command: Any) -> Any:
        return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def add(self, *fields: str | bytes) -> str:
        """An entry of names and values in turn; its id."""
        answer: bytes = await self.ask("XADD", self.name, "*", *fields)
        return answer.decode()

    async def send(self, body: bytes = b"{}") -> str:
        return await self.add("body", body)

    async def pending(self) -> int:
        """How many entries somebody has in hand."""
        return int((await self.ask("XPENDING", self.name, "hammerwork"))[0])

    async def consumers(self) -> list[str]:
        found = await self.ask("XINFO", "CONSUMERS", self.name, "hammerwork")
        return [dict(zip(flat[::2], flat[1::2], strict=True))[b"name"].decode() for flat in found]

    def options(self, **settings: Any) -> RedisOptions:
        usual = {"url": self.url, "stream": self.name, "body_field": "body"}
        return RedisOptions.model_validate(usual | settings)

    async def close(self) -> None:
        await self.ask("DEL", self.name)
        await self._client.aclose()
