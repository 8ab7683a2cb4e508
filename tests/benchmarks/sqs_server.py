"""A queue that does as little as SQS's protocol allows, in a process of its own: every emulator is slower
than the clients that are to be measured."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast
from uuid import uuid4

import uvloop

from .payloads import encoded, payloads

END = b"\r\n\r\n"
LENGTH = b"content-length:"
TARGET = b"x-amz-target: amazonsqs."
EMPTY = b"{}"
QUEUE = "/000000000000/bench"


@asynccontextmanager
async def sqs_server(messages: int) -> AsyncIterator[str]:
    """The URL of a queue that holds so many messages, each to be received once."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __spec__.name, str(messages), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}{QUEUE}"
    finally:
        process.kill()
        await process.wait()


class _Queue:
    """The messages as JSON text, handed out in tens."""

    def __init__(self, count: int) -> None:
        self._tens: list[bytes] = []
        rendered = [_rendered(encoded(payload)) for payload in payloads(count)]
        for start in range(0, count, 10):
            self._tens.append(('{"Messages":[' + ",".join(rendered[start : start + 10]) + "]}").encode())
        self._tens.reverse()

    def answer(self, action: bytes, body: bytes) -> bytes:
        match action:
            case b"receivemessage":
                return self._tens.pop() if self._tens else EMPTY
            case b"deletemessagebatch" | b"changemessagevisibilitybatch":
                done = [{"Id": entry["Id"]} for entry in json.loads(body)["Entries"]]
                return json.dumps({"Successful": done, "Failed": []}).encode()
            case _:
                return b'{"Attributes":{}}'


class _Connection(asyncio.Protocol):
    def __init__(self, queue: _Queue) -> None:
        self._queue = queue
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(END)) >= 0:
            head = self._received[:end].lower()
            length = int(head[head.index(LENGTH) + len(LENGTH) :].split(b"\r\n", 1)[0])
            whole = end + len(END) + length
            if len(self._received) < whole:
                return
            body, self._received = self._received[end + len(END) : whole], self._received[whole:]
            action = head[head.index(TARGET) + len(TARGET) :].split(b"\r\n", 1)[0]
            answer = self._queue.answer(action, body)
            # A poll of an empty queue waits, or the clients would measure how fast they ask for nothing.
            asyncio.get_running_loop().call_later(0 if answer != EMPTY else 1, self._write, answer)

    def _write(self, body: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {len(body)}"
        self._transport.write(head.encode() + END + body)


def _rendered(body: str) -> str:
    identity, now = str(uuid4()), str(time.time_ns() // 1_000_000)
    message = {
        "MessageId": identity,
        "ReceiptHandle": identity * 4,
        "MD5OfBody": hashlib.md5(body.encode(), usedforsecurity=False).hexdigest(),
        "Body": body,
        "Attributes": {
            "SenderId": "AIDAEXAMPLE",
            "SentTimestamp": now,
            "ApproximateReceiveCount": "1",
            "ApproximateFirstReceiveTimestamp": now,
        },
    }
    return json.dumps(message, separators=(",", ":"))


async def _serve(messages: int) -> None:
    queue = _Queue(messages)
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(queue), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
