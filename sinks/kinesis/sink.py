"""KinesisSink: batches of events to a data stream by PutRecords, those of a key never two in one request."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog

from ...clients.aws.client import client_of, mapped
from ...core.errors import BadMessage, Disconnected
from ...core.event import LoggedEvent, SinkCapabilities
from ...core.job import Dead, Done, Outcome, Retry, Snooze
from ...core.message import Guarantee
from ..expression import TextOfEvent
from ..formats import FORMATS
from . import aggregation
from .options import MOST_BYTES, MOST_RECORDS, KinesisOptions
from .shards import HASH_KEYS, Shard, Shards, hash_key_of

if TYPE_CHECKING:
    from types_aiobotocore_kinesis import KinesisClient

log = structlog.get_logger(__name__)

WAITING = Snooze(timedelta(0))
LONGEST_KEY = 256
HASH_KEY = re.compile(r"[0-9]{1,64}")
NEEDED = "the credentials need kinesis:PutRecords and kinesis:ListShards, and kms:GenerateDataKey for its key"
NO_STREAM = {
    "ResourceNotFoundException": "create the stream, or check stream, region and account;"
    " nothing is lost meanwhile"
}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A record to be put: its events by their places in the send, and its arguments."""

    places: tuple[int, ...]
    key: str
    data: bytes
    shard: Shard
    hash_key: str | None

    @property
    def size(self) -> int:
        return len(self.key.encode()) + len(self.data)

    def arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = {"Data": self.data, "PartitionKey": self.key}
        if self.hash_key is not None:
            found["ExplicitHashKey"] = self.hash_key
        return found


@dataclass(frozen=True, slots=True)
class _Written:
    """An event as it would be written alone."""

    place: int
    key: str
    data: bytes
    hash_key: str | None


class KinesisSink:
    """Implements `core.event.LogSink`.

    PutRecords stores what it can and goes on behind what it cannot, so a request holds one record of a key
    (aggregated: of a shard) at most, and the next one of that key follows when it was stored. What a shard
    throttles waits, and with it all else of that shard; other shards go on. Raises Misconfigured for options
    that cannot be used, and MissingExtra for aggregation.
    """

    Options = KinesisOptions
    capabilities = SinkCapabilities(batches=True, order="key", refuses=True, largest=1024 * 1024)

    def __init__(self, name: str, options: KinesisOptions) -> None:
        self.name = name
        self._options = options
        self._format = FORMATS[options.format]()
        self._key = _text_of_event("partition_key", options.partition_key)
        self._hash_key = _text_of_event("explicit_hash_key", options.explicit_hash_key)
        if options.aggregate:
            aggregation.require()
        self._closing = AsyncExitStack()
        self._client: KinesisClient | None = None
        self._shards = Shards(())

    async def open(self) -> str | None:
        await self._connect()
        await self._find_shards()
        return None

    async def close(self) -> None:
        self._client = None
        closing, self._closing = self._closing, AsyncExitStack()
        await closing.aclose()

    async def guarantee(self) -> Guarantee:
        other = KinesisSink(self.name, self._options)
        try:
            await other.open()
            shards = len(other._shards)
        finally:
            await other.close()
        return Guarantee(
            "at-least-once",
            f"each record is put until one of the {shards} shards has stored it, the next of its key only"
            " then; what comes again after a crash, consumers see by the event's id",
        )

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        if not self._shards:
            await self._find_shards()
        outcomes: list[Outcome] = [WAITING] * len(events)
        written = self._written(events, outcomes)
        entries = self._aggregated(written) if self._options.aggregate else self._single(written)
        room, stuck = asyncio.Semaphore(self._options.requests), set[Shard]()
        fault: Disconnected | None = None
        for wave in _waves(entries, by_shard=self._options.aggregate):
            requests = list(_requests([entry for entry in wave if entry.shard not in stuck]))
            if not requests:
                break
            # All of them, also when one fails: what is on its way must not arrive behind its repetition.
            answers = await asyncio.gather(
                *(self._put(request, room, outcomes) for request in requests), return_exceptions=True
            )
            for request, answer in zip(requests, answers, strict=True):
                match answer:
                    case Disconnected():
                        # What became of this request is not known; what others stored is.
                        fault = answer
                        stuck.update(entry.shard for entry in request)
                        _tell(outcomes, request, Retry(str(answer)))
                    case BaseException():
                        raise answer
                    case _:
                        stuck |= answer
        if fault is not None and not any(isinstance(outcome, Done) for outcome in outcomes):
            raise fault
        return outcomes

    # --- what is written ---

    def _written(self, events: Sequence[LoggedEvent], outcomes: list[Outcome]) -> list[_Written]:
        found = []
        most = int(self._options.max_record_bytes)
        if self._options.aggregate:
            most -= aggregation.OVERHEAD + aggregation.EACH
        for place, event in enumerate(events):
            try:
                key = self._key(event) if self._key else str(event.job_id or event.id)
                if len(key) > LONGEST_KEY:
                    raise BadMessage("no_key", f"a partition key has at most {LONGEST_KEY} characters")
                hash_key = self._chosen_hash_key(event)
                data = self._format.value(event)
                if (size := len(key.encode()) + len(data)) > most:
                    raise BadMessage("too_large", f"{size} bytes, more than max_record_bytes allows ({most})")
                found.append(_Written(place, key, data, hash_key))
            except BadMessage as bad:
                outcomes[place] = Dead(str(bad))
        return found

    def _chosen_hash_key(self, event: LoggedEvent) -> str | None:
        """As Kinesis writes it, without leading zeros: it refuses a whole request for one that is not."""
        if self._hash_key is None:
            return None
        text = self._hash_key(event)
        if HASH_KEY.fullmatch(text) is None or (number := int(text)) >= HASH_KEYS:
            raise BadMessage("no_key", "the explicit hash key is no number below 2^128")
        return str(number)

    def _single(self, written: Sequence[_Written]) -> list[_Entry]:
        return [_Entry((one.place,), one.key, one.data, self._shard_of(one), one.hash_key) for one in written]

    def _aggregated(self, written: Sequence[_Written]) -> list[_Entry]:
        """Records of one shard each, as full as they may be, in the order of their events."""
        entries, gathered = [], dict[Shard, list[_Written]]()
        sizes: dict[Shard, int] = {}
        most = int(self._options.max_record_bytes) - aggregation.OVERHEAD
        for one in written:
            shard = self._shard_of(one)
            size = len(one.data) + len(one.key.encode()) + aggregation.EACH
            if shard in gathered and sizes[shard] + size > most:
                entries.append(_entry_of(gathered.pop(shard), shard))
            gathered.setdefault(shard, []).append(one)
            sizes[shard] = size if len(gathered[shard]) == 1 else sizes[shard] + size
        return entries + [_entry_of(together, shard) for shard, together in gathered.items()]

    def _shard_of(self, one: _Written) -> Shard:
        return self._shards.of(hash_key_of(one.key) if one.hash_key is None else int(one.hash_key))

    # --- sending ---

    async def _put(
        self, request: Sequence[_Entry], room: asyncio.Semaphore, outcomes: list[Outcome]
    ) -> set[Shard]:
        """One PutRecords; the shards that did not take all of theirs."""
        if self._client is None:
            raise Disconnected("the sink is closed")
        async with room:
            with mapped(NEEDED, absent=NO_STREAM):
                answer = await self._client.put_records(
                    Records=[entry.arguments() for entry in request],  # type: ignore[misc]
                    **self._options.named,  # type: ignore[arg-type]
                )
        stuck, moved = set(), False
        for entry, told in zip(request, answer["Records"], strict=True):
            if code := told.get("ErrorCode"):
                stuck.add(entry.shard)
                outcome: Outcome = Retry(f"{entry.shard.id}: {code} {told.get('ErrorMessage', '')}".rstrip())
            else:
                moved = moved or told["ShardId"] not in self._shards
                outcome = Done()
            _tell(outcomes, [entry], outcome)
        if moved:
            log.info("stream was resharded", sink=self.name, stream=self._options.stream)
            self._shards = Shards(())  # found anew before the next batch
        return stuck

    async def _connect(self) -> None:
        options = self._options
        with mapped(NEEDED):
            client = client_of(
                options, "kinesis", read_timeout=options.timeout, connections=options.requests + 2, attempts=2
            )
            self._client = await self._closing.enter_async_context(client)

    async def _find_shards(self) -> None:
        if self._client is None:
            raise Disconnected("the sink is closed")
        found: list[Any] = []
        arguments: dict[str, Any] = dict(self._options.named)
        while True:
            with mapped(NEEDED, absent=NO_STREAM):
                answer = await self._client.list_shards(**arguments)
            found += answer["Shards"]
            if (token := answer.get("NextToken")) is None:
                break
            arguments = {"NextToken": token}
        self._shards = Shards(found)
        if not self._shards:
            raise Disconnected(f"stream {self._options.stream} has no open shard yet")


def _tell(outcomes: list[Outcome], entries: Sequence[_Entry], outcome: Outcome) -> None:
    for entry in entries:
        for place in entry.places:
            outcomes[place] = outcome


def _text_of_event(name: str, source: str | None) -> TextOfEvent | None:
    return None if source is None else TextOfEvent(name, source)


def _entry_of(together: Sequence[_Written], shard: Shard) -> _Entry:
    data = aggregation.aggregated((one.key, one.data) for one in together)
    places = tuple(one.place for one in together)
    return _Entry(places, together[0].key, data, shard, str(shard.start))


def _waves(entries: Sequence[_Entry], *, by_shard: bool) -> Iterator[list[_Entry]]:
    """The first record of every key (or shard), then the second, and so on."""
    lines: dict[str, deque[_Entry]] = {}
    for entry in entries:
        lines.setdefault(entry.shard.id if by_shard else entry.key, deque()).append(entry)
    while lines:
        yield [line.popleft() for line in lines.values()]
        lines = {key: line for key, line in lines.items() if line}


def _requests(entries: Sequence[_Entry]) -> Iterator[list[_Entry]]:
    """Cut at the limits of PutRecords."""
    request: list[_Entry] = []
    size = 0
    for entry in entries:
        if request and (len(request) == MOST_RECORDS or size + entry.size > MOST_BYTES):
            yield request
            request, size = [], 0
        request.append(entry)
        size += entry.size
    if request:
        yield request
