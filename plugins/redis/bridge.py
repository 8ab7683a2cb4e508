"""RedisBridge: a consumer group of a Redis stream as a source of messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, assert_never

import structlog

from .. import (
    BridgeCapabilities,
    Delivery,
    Disconnected,
    Guarantee,
    Json,
    JsonIdentity,
    Message,
    Misconfigured,
    MissingExtra,
    Receipt,
    Want,
    text_identity,
)
from ..connection import Address, address_of
from ..content import readable
from .options import FieldIdentity, RedisOptions, ServerOptions

if TYPE_CHECKING:
    from .link import Command, RedisLink

log = structlog.get_logger(__name__)

SCHEMES = {"redis": 6379, "rediss": 6379}
STARTS = {"beginning": "0", "end": "$"}
LONGEST_BLOCK = 5.0
"""Seconds that one read may wait at the server; the link gives it up some time later."""
CHUNK = 100
"""Entries that are asked for at once: the server knows no limit in bytes."""
FAREWELL = 5.0
"""Seconds that giving back may take on closing."""
RELEASED = "hammerwork.released"
"""The consumer that holds what was handed back; nobody reads as it, so that everybody may claim from it."""
LEAVE = """
for _, consumer in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])) do return 0 end
return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
"""
"""Removes a consumer, unless entries are still owed to it: they would be lost with it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the stream: its id and fields, and which delivery of it this is."""

    id: bytes
    fields: Mapping[bytes, bytes]
    attempt: int

    @property
    def size(self) -> int:
        return sum(map(len, self.fields.values()))


class RedisBridge:
    """Implements `core.message.Bridge` for one stream and one consumer group.

    What is read stays in the group's list of pending entries until it is acknowledged. Three kinds of entries
    are delivered, in this order: what was sent to this consumer before the connection was lost, what other
    consumers have left unanswered for longer than the lease, and what is new. Raises Misconfigured for a URL
    that cannot be used, and MissingExtra where the client is not installed.
    """

    Options = RedisOptions
    capabilities = BridgeCapabilities(
        stable_ids=True, counts_deliveries=True, lease="expires", carries=frozenset({"id", "key", "headers"})
    )

    def __init__(self, name: str, options: RedisOptions) -> None:
        self.name = name
        self._options = options
        self._link_type = link_type("the Redis bridge")
        self._address = server_address(options)
        self._consumer = options.consumer or f"hammerwork.{name}.{secrets.token_hex(4)}"
        self._lease = round(options.lease.total_seconds() * 1000)
        self._start = STARTS.get(options.start, options.start)
        self._link: RedisLink | None = None
        self._in_hand: dict[bytes, int] = {}
        """Ids that an answer is owed for, and which delivery of each it is."""
        self._ahead: deque[Entry] = deque()
        """What came with a pull and was too large for it: of these too an answer is owed."""
        self._behind: bytes | None = None
        """How far this consumer's own pending entries were read again; None: all of them."""
        self._claimed: bytes = b"0-0"
        self._claim_at = 0.0

    async def open(self) -> None:
        await self.close()
        link = self._new_link()
        try:
            await self._join(link)
        except BaseException:
            await link.close()
            raise
        self._link, self._behind, self._claimed, self._claim_at = link, b"0-0", b"0-0", 0.0
        log.info("redis.opened", bridge=self.name, url=self._address.shown, stream=self._options.stream)

    async def pull(self, want: Want) -> Sequence[Delivery]:
        link = self._alive()
        batch = _Batch(want, self._ahead)
        await self._read_again(link, batch)
        await self._claim(link, batch)
        await self._read(link, batch, timedelta(0) if batch.entries else want.wait)
        if batch.entries and batch.room and want.linger:
            await asyncio.sleep(want.linger.total_seconds())
            await self._read(link, batch, timedelta(0))
        return [Delivery(self._message(entry), entry.id) for entry in batch.entries]

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        """An id may be acknowledged on any connection and whoever holds it by now: its message is stored."""
        if not receipts:
            return
        link, stream = self._alive(), self._options.stream
        ids = [receipt.delivery.handle for receipt in receipts]
        commands: list[Command] = [("XACK", stream, self._options.group, *ids)]
        if self._options.after == "delete":
            commands.append(("XDEL", stream, *ids))
        await link.ask_all(commands, together=True)
        for entry_id in ids:
            self._in_hand.pop(entry_id, None)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        if self._link is not None:
            await self._give_back(self._link, [delivery.handle for delivery in deliveries], counted=False)

    async def rest(self) -> None:
        link = self._alive()
        await link.ask("PING")
        await self._give_back(link, [], counted=False)

    async def lag(self) -> int | None:
        group = await self._group(self._alive())
        if group is None or group.get(b"lag") is None:
            return None
        waiting: int = group[b"lag"] + group[b"pending"] + len(self._ahead) - len(self._in_hand)
        return max(0, waiting)

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        with contextlib.suppress(Disconnected, Misconfigured, TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await self._give_back(link, list(self._in_hand), counted=True)
                if self._options.consumer is None:
                    stream, group = self._options.stream, self._options.group
                    await link.ask("EVAL", LEAVE, 1, stream, group, self._consumer)
        self._in_hand.clear()
        await link.close()

    async def guarantee(self) -> Guarantee:
        link = self._new_link()
        try:
            if self._options.declare == "verify":
                await self._join(link)
            told = await link.ask("INFO")
        finally:
            await link.close()
        return _guarantee(
            self._options, dict(line.split(":", 1) for line in told.decode().split() if ":" in line)
        )

    def _alive(self) -> RedisLink:
        if self._link is None:
            raise Disconnected("the bridge is not open")
        return self._link

    def _new_link(self) -> RedisLink:
        return self._link_type.to(self._address, self._options, name=self.name)

    # --- the group ---

    async def _join(self, link: RedisLink) -> None:
        """See that the group exists. One that has to be made again, because it or its stream was deleted
        under a bridge that began at the end, begins where the bridge was: what came since is not missed."""
        options = self._options
        if await self._group(link) is not None:
            return
        if options.declare == "verify":
            raise Misconfigured(
                f"the stream {options.stream!r} has no group {options.group!r}",
                hint="create it, correct the names, or let the bridge create it with declare = 'create'",
            )
        command = ("XGROUP", "CREATE", options.stream, options.group, self._start, "MKSTREAM")
        await link.ask(*command, unless="BUSYGROUP")
        log.info("redis.group_created", bridge=self.name, group=options.group, start=self._start)
        if self._start == "$":
            stream = _pairs(await link.ask("XINFO", "STREAM", options.stream))
            self._start = stream[b"last-generated-id"].decode()

    async def _group(self, link: RedisLink) -> Mapping[bytes, Any] | None:
        groups = await link.ask("XINFO", "GROUPS", self._options.stream, unless="no such key")
        found = map(_pairs, groups or ())
        return next((group for group in found if group[b"name"] == self._options.group.encode()), None)

    # --- reading ---

    async def _read_again(self, link: RedisLink, batch: _Batch) -> None:
        """What this consumer was sent before the link was made and has not acknowledged."""
        while self._behind is not None and batch.room:
            asked = min(batch.room, CHUNK)
            found = await self._read_group(link, asked, self._behind)
            self._behind = found[-1][0] if len(found) == asked else None
            await self._take_again(link, batch, found)

    async def _claim(self, link: RedisLink, batch: _Batch) -> None:
        """What others have had in hand for longer than the lease, or have handed back; looked for twice in a
        lease, because nothing tells of it."""
        now = asyncio.get_running_loop().time()
        while now >= self._claim_at and batch.room:
            stream, group = self._options.stream, self._options.group
            command = ("XAUTOCLAIM", stream, group, self._consumer, self._lease, self._claimed, "COUNT")
            self._claimed, found, *_ = await link.ask(*command, min(batch.room, CHUNK))
            if self._claimed == b"0-0":
                self._claim_at = now + self._options.lease.total_seconds() / 2
            await self._take_again(link, batch, [raw for raw in found if raw and raw[0] not in self._in_hand])

    async def _read(self, link: RedisLink, batch: _Batch, wait: timedelta) -> None:
        """What no consumer of the group has had yet; waits for the first of it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait.total_seconds()
        while batch.room:
            asked, left = min(batch.room, CHUNK), until - loop.time()
            block = 0 if batch.entries else max(0, round(min(left, LONGEST_BLOCK) * 1000))
            found = await self._read_group(link, asked, b">", block)
            for entry_id, fields in found:
                self._take(batch, Entry(entry_id, _pairs(fields), 1))
            if found and self._options.start == "end":
                self._start = found[-1][0].decode()
            if len(found) < asked and (batch.entries or loop.time() >= until):
                return

    async def _read_group(self, link: RedisLink, count: int, after: bytes, block: int = 0) -> list[Any]:
        """Entries as the server gives them: [id, fields], the fields None where the entry was deleted."""
        waiting = ("BLOCK", block) if block else ()
        reader = ("XREADGROUP", "GROUP", self._options.group, self._consumer, "COUNT", count)
        answer = await link.ask(*reader, *waiting, "STREAMS", self._options.stream, after)
        return [] if not answer else list(answer[0][1])

    async def _take_again(self, link: RedisLink, batch: _Batch, found: Sequence[Any]) -> None:
        """Entries that were delivered before: the group knows how often. What was trimmed away before it was
        read is lost, and must not be owed for ever."""
        stream, group = self._options.stream, self._options.group
        gone = [entry_id for entry_id, fields in found if fields is None]
        if gone:
            log.warning("redis.trimmed_unread", bridge=self.name, stream=stream, entries=len(gone))
            await link.ask("XACK", stream, group, *gone)
        there = [(entry_id, fields) for entry_id, fields in found if fields is not None]
        asked = await link.ask_all([("XPENDING", stream, group, e, e, 1) for e, _ in there]) if there else []
        for (entry_id, fields), pending in zip(there, asked, strict=True):
            self._take(batch, Entry(entry_id, _pairs(fields), pending[0][3] if pending else 1))

    def _take(self, batch: _Batch, entry: Entry) -> None:
        self._in_hand[entry.id] = entry.attempt
        if batch.room:
            batch.add(entry)
        else:
            self._ahead.append(entry)

    async def _give_back(self, link: RedisLink, ids: Iterable[bytes], *, counted: bool) -> None:
        """Let these look as if nobody had answered for them for as long as the lease, so that whoever claims
        next has them; with or without counting the delivery that is under way. What was received ahead goes
        with them."""
        by_attempt: dict[int, list[bytes]] = defaultdict(list)
        ahead = [entry.id for entry in self._ahead]
        self._ahead.clear()
        for entry_id in (*ids, *ahead):
            if (attempt := self._in_hand.pop(entry_id, None)) is not None:
                by_attempt[attempt].append(entry_id)
        claim: Command = ("XCLAIM", self._options.stream, self._options.group, RELEASED, 0)
        aged: Command = ("IDLE", self._lease, "JUSTID", "RETRYCOUNT")
        self._claim_at = 0.0
        if by_attempt:
            off = 0 if counted else 1
            await link.ask_all([(*claim, *held, *aged, n - off) for n, held in by_attempt.items()])

    # --- from an entry to a message ---

    def _message(self, entry: Entry) -> Message:
        options = self._options
        fields = {_name(name): readable(value) for name, value in entry.fields.items()}
        if options.body_field is None:
            body, headers = json.dumps(fields, ensure_ascii=False).encode(), {}
        else:
            body = entry.fields.get(options.body_field.encode(), b"")
            headers = {name: value for name, value in fields.items() if name != options.body_field}
        entry_id = entry.id.decode()
        return Message(
            body=body,
            id=self._identity(entry_id, fields, body),
            key=None if options.key_field is None else text_identity(fields.get(options.key_field)),
            headers=headers,
            timestamp=_moment(entry_id),
            attempt=entry.attempt,
            coordinates={
                "broker": "redis",
                "stream": options.stream,
                "group": options.group,
                "entry": entry_id,
            },
        )

    def _identity(self, entry_id: str, fields: Mapping[str, Json], body: bytes) -> str | None:
        match self._options.identity:
            case "entry":
                return f"{self._options.stream}:{entry_id}"
            case "none":
                return None
            case FieldIdentity(field=name):
                return text_identity(fields.get(name))
            case JsonIdentity() as pointed:
                return pointed.of(body)
            case other:
                assert_never(other)


class _Batch:
    """What one pull has gathered so far; of `ahead` as much as there is room for."""

    def __init__(self, want: Want, ahead: deque[Entry]) -> None:
        self.entries: list[Entry] = []
        self._want = want
        self._size = 0
        while ahead and self.room:
            self.add(ahead.popleft())

    @property
    def room(self) -> int:
        """How many entries more may come."""
        return max(0, self._want.count - len(self.entries)) if self._size < self._want.size else 0

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._size += entry.size


def link_type(feature: str) -> type[RedisLink]:
    """The class of the connection. Raises MissingExtra where its client is not installed."""
    try:
        from .link import RedisLink
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "redis":
            raise MissingExtra(feature, "redis") from error
        raise
    return RedisLink


def server_address(options: ServerOptions) -> Address:
    """Raises Misconfigured for a URL that cannot be used."""
    address = address_of(options.url, options.tls, schemes=SCHEMES, secure="rediss")
    if address.path and not address.path.isdecimal():
        raise Misconfigured("the url's path must be the number of a database", hint="redis://host:6379/0")
    return address


def _pairs(flat: Sequence[Any]) -> dict[Any, Any]:
    """A list of names and values as a mapping; the last of a name that comes twice."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _name(field: bytes) -> str:
    return field.decode("utf-8", "backslashreplace")


def _moment(entry_id: str) -> datetime | None:
    """When the entry was added, where its id was made by the server: a time in milliseconds."""
    try:
        return datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _guarantee(options: RedisOptions, server: Mapping[str, str]) -> Guarantee:
    warnings = tuple(_warnings(options, server))
    match options.identity:
        case "none":
            because = "identity is none, so an entry that is delivered twice is stored twice"
            return Guarantee("at-least-once", because, warnings)
        case "entry":
            because = "the id of an entry is the same on every delivery"
            return Guarantee("exactly-once in effect", because, warnings)
        case FieldIdentity(field=name):
            source = f"the producer sets the field {name}"
        case JsonIdentity(pointer=pointer):
            source = f"the body has an identity at {pointer}"
        case other:
            assert_never(other)
    because = f"where {source}; messages without one are stored at least once"
    return Guarantee("exactly-once in effect", because, warnings)


def _warnings(options: RedisOptions, server: Mapping[str, str]) -> Iterator[str]:
    if options.identity == "none":
        yield "duplicates cannot be told: name an identity"
    if options.identity == "entry":
        yield "a producer that adds a message again makes another entry: name a field that it keeps the same"
    if server.get("aof_enabled") == "0":
        yield "the server has no append-only file: a crash loses entries, and which of them were read"
    if server.get("maxmemory_policy", "noeviction") != "noeviction":
        yield "the server evicts keys when memory is short (maxmemory-policy): that may be the stream"
