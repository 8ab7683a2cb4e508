"""Message and Delivery: what a broker hands us; and Bridge, the seam that every broker implements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable
from uuid import UUID

from .errors import BadMessage
from .job import Json

NOTHING: Mapping[str, Json] = MappingProxyType({})
"""What a message without headers or coordinates has of them."""


class Message(NamedTuple):
    """One message, bytes in: decoding is the intake's work, never the bridge's.

    Name the fields: like Position, Delivery and Receipt it is a tuple because one is made for every message,
    which costs a third of a frozen dataclass; nothing relies on the order of its fields.

    `id` is the broker's or producer's stable identity, the same on every redelivery, or None where
    there is none (then the bridge is at-least-once; a delivery tag or a redelivered flag is no
    identity). `headers` hold JSON values; a bridge renders bytes that are not UTF-8 as
    `{"base64": …}` and times as RFC 3339 text. `attempt` counts deliveries of this message where the
    broker counts them (1 for the first). `coordinates` say where it was: queue, exchange, offset, …
    `tombstone` says that there is a key and no body at all (a deletion in a compacted log).
    """

    body: bytes
    id: str | None = None
    key: str | None = None
    headers: Mapping[str, Json] = NOTHING
    content_type: str | None = None
    content_encoding: str | None = None
    priority: int | None = None
    """The broker's own number (AMQP: 0 to 255), not yet a job's priority."""
    correlation_id: str | None = None
    timestamp: datetime | None = None
    attempt: int | None = None
    coordinates: Mapping[str, Json] = NOTHING
    tombstone: bool = False


class Position(NamedTuple):
    """Where a message stands in a log: the partition's name, unique in its bridge, and the offset in it."""

    partition: str
    offset: int


class Delivery(NamedTuple):
    """A message together with the handle by which its bridge settles it; the core never looks inside.

    `position` only from a log (`LogBridge`). `refused` where the bridge itself finds that the message can
    never be read (an envelope that is none, a body that lies elsewhere and is gone): it becomes a dead letter
    with that reason, and `message` is what is kept of it.
    """

    message: Message
    handle: Any = None
    position: Position | None = None
    refused: BadMessage | None = None


class Fate(StrEnum):
    """What became of a delivery, in a transaction that has committed."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    FILTERED = "filtered"
    DEAD_LETTERED = "dead_lettered"


class Receipt(NamedTuple):
    """The committed answer to one delivery. `job_id` for stored and duplicate; `dead_letter_id` and
    `reason` (a code) with `detail` (prose) for dead-lettered."""

    delivery: Delivery
    fate: Fate
    job_id: UUID | None = None
    dead_letter_id: UUID | None = None
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """How much one pull may bring: at most `count` deliveries and about `size` bytes, waiting at most
    `wait` for the first and `linger` after it for more."""

    count: int = 500
    size: int = 8 * 1024 * 1024
    wait: timedelta = timedelta(seconds=1)
    linger: timedelta = timedelta(milliseconds=5)


EXACTLY_ONCE = "exactly-once in effect"
AT_LEAST_ONCE = "at-least-once"


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What a bridge or sink promises as it is configured, and why; `hammerwork check` prints it."""

    level: str
    """EXACTLY_ONCE or AT_LEAST_ONCE."""
    because: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeCapabilities:
    """What a type of bridge and its broker can do, said by its class attribute `capabilities`.

    The framework works the same without it. It is what `hammerwork plugins show` prints, what the default of
    `Bridge.guarantee` promises, and which tests of `hammerwork.plugins.conformance` must hold.
    """

    kind: Literal["ack", "log"] = "ack"
    """Whether messages are acknowledged one by one, or read from a log by offset (`LogBridge`)."""
    order: Literal["none", "key", "partition", "total"] = "none"
    """Within what deliveries come in the order of publishing, also when some of them come again."""
    stable_ids: bool = False
    """Every message has an `id`, and the same one on every delivery."""
    counts_deliveries: bool = False
    """`Message.attempt` rises with every delivery."""
    lease: Literal["none", "expires", "renewed"] = "none"
    """Whether what is in hand comes again by itself after a time, and whether the bridge, while it is open,
    prolongs that time."""
    returns_on_close: bool = True
    """What is unsettled comes again as soon as the bridge closes, and not only when a lease has expired."""
    shared: bool = True
    """Several bridges may read the same queue, each message going to one of them."""
    carries: frozenset[str] = frozenset()
    """What survives the broker beside `body`: fields of Message (`id`: the one that the producer gave)."""
    largest: int | None = None
    """Bytes of the largest body that the broker takes; None where that is more than the intake takes."""


class Bridge(Protocol):
    """What stands between one broker queue and the intake. A bridge speaks to its broker only.

    The framework calls, one call at a time and in this order: `open`, then `pull` and `settle` or
    `release` again and again, then `close`; `rest` in place of `pull` while it holds back, and `lag` now and
    then, also while another call is under way. While one pull's deliveries are stored it pulls once more, so
    two pulls may be unsettled; they are settled in their order. It owns the transaction, deduplication,
    dead letters, backpressure and reconnecting, so a bridge has no retry loop and never sees Postgres. The
    same object is opened again after a `close`, and a `pull` may follow a `release`.

    Raise `Disconnected` from any method when the broker is gone: the framework closes, backs off and
    opens again. Raise `Misconfigured` when trying again cannot help (wrong password, missing queue):
    the bridge is held with that reason and opened again at a slow pace. Any other exception is taken
    as `Disconnected` and logged with its trace.

    A class that names Bridge as its base may leave out `release`, `rest`, `lag` and `guarantee`: what they do
    then is told with each of them. As a type that settings can name it has two attributes more: `Options`, a
    pydantic model, and `capabilities`; it is called with its name and its options.
    """

    name: str

    async def open(self) -> None:
        """Connect, declare or verify the topology, begin to receive."""
        ...

    async def pull(self, want: Want) -> Sequence[Delivery]:
        """The next deliveries, in the broker's order; an empty sequence when `want.wait` passed. Where that
        is nothing: those that are there already.

        Must return within about `want.wait` + `want.linger`; it is never cancelled half-way, so it
        may hold messages that it has received. (Only a bridge that has not answered for a minute while
        messages wait at its broker is cut off.)
        """
        ...

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        """Tell the broker that these deliveries are stored for good. Only called after COMMIT.

        Receipts come in pull order and cover whole pulls. A broker that refuses a late
        acknowledgement will redeliver, and the inbox drops the duplicate: not an error.
        """
        ...

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Hand these back to the broker unprocessed (we stop, or Postgres is away), without counting
        a failure against them where the broker can tell the difference. Best effort. Left out: `close` gives
        them back, or their lease runs out."""
        return

    async def rest(self) -> None:
        """Called about once a second in place of `pull` while the intake holds back (an operator paused the
        bridge, or the queue of its jobs is too deep): stay connected, receive nothing more, and hand back
        what was received ahead, so that others can have it. Returns at once. Left out: nothing, which is
        right for a bridge that receives in `pull` only."""
        return

    async def lag(self) -> int | None:
        """How many messages wait at the broker for this bridge, about; None where the broker does not tell.
        Takes no message and no long time. Left out: None."""
        return None

    async def close(self) -> None:
        """Disconnect. Idempotent, bounded in time, never raises for a broker that is already gone."""
        ...

    async def guarantee(self) -> Guarantee:
        """Connect on its own, look at the real topology, and say what holds. Used by `check`. Left out: what
        the declared capabilities promise."""
        capabilities: BridgeCapabilities = getattr(self, "capabilities", BridgeCapabilities())
        return promise(capabilities)


def promise(capabilities: BridgeCapabilities) -> Guarantee:
    """What holds for a bridge of these capabilities, by what the framework does with it."""
    if capabilities.kind == "log":
        return Guarantee(EXACTLY_ONCE, "its offsets move in the transaction that stores the jobs")
    if capabilities.stable_ids:
        return Guarantee(
            EXACTLY_ONCE, "every message has an identity, and one that comes again is dropped by it"
        )
    return Guarantee(
        AT_LEAST_ONCE, "a message without an identity that comes again after a crash is stored a second time"
    )


class Offsets(Protocol):
    """Where a log bridge goes on in its partitions. The framework keeps it in Postgres and moves it in the
    transaction that stores the jobs, so that the log's own notion of what was read does not matter."""

    async def take(self, partitions: Sequence[str]) -> Mapping[str, int | None]:
        """Own these partitions from now on: whoever owned them before commits nothing more for them.

        The offset at which each goes on; None where nobody has read it yet (then `begin` it). Raises
        Unavailable when Postgres is away: let it through.
        """
        ...

    async def begin(self, starts: Mapping[str, int]) -> None:
        """Go on at these offsets in partitions that were taken: where they have none yet, and where the log
        holds something else than was expected. With nothing of them in hand. Raises Unavailable."""
        ...

    def leave(self, partitions: Sequence[str]) -> None:
        """These are not ours any more; what of them is in hand is dropped, not stored."""
        ...


@runtime_checkable
class LogBridge(Bridge, Protocol):
    """A bridge whose broker keeps a log that is read by offset (Kafka) instead of messages that are
    acknowledged one by one.

    Every delivery has a `position`; those of one partition come in rising order. Before a partition's first
    delivery the bridge must `take` it and go to the offset that it is told. What is settled needs no
    acknowledgement: tell the broker for its lag tools, or not at all; there are no receipts for what was in
    hand of a partition that has another owner by now. After `release` the bridge goes back to the first of
    the released offsets of each partition.
    """

    def keep(self, offsets: Offsets) -> None:
        """Called once, before the first `open`."""
        ...


class Look(Protocol):
    """What an operator looks at messages through: as of a Bridge, without a settle."""

    async def open(self) -> None: ...

    async def pull(self, want: Want) -> Sequence[Delivery]: ...

    async def release(self, deliveries: Sequence[Delivery]) -> None: ...

    async def close(self) -> None: ...


@runtime_checkable
class TappableBridge(Bridge, Protocol):
    """A bridge with a word in how an operator looks at its messages (`hammerwork bridge tap`).

    One without is opened beside the one that runs, pulled from, told to `release` all of it, and closed; that
    is harmless where a broker shares messages out and takes them back. A log (`LogBridge`) without is not
    looked at: it would take partitions from the gateway.
    """

    def tap(self, most: int, kept: Mapping[str, int | None]) -> Look:
        """A look at up to `most` messages. It must take nothing from the one that runs, for good: not its
        name or group, not its place, no more messages than that at a time; and it changes no topology.

        `kept`: of a log, the offset at which the gateway goes on, by partition (None: not begun). Raises
        Misconfigured with the reason where messages cannot be looked at.
        """
        ...
