"""One client of the brokers: made, started, stopped, and what its errors mean to us."""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka

from ...clients.kafka.client import LOGIN_REFUSED, end, login_refused, start
from ...clients.kafka.login import login_arguments
from ...clients.kafka.options import milliseconds
from ...core.errors import Disconnected, HammerworkError, Misconfigured
from .options import KafkaOptions

FAREWELL = 3.0
"""Seconds that leaving the group may take; then the connections are cut."""

FORBIDDEN = (
    kafka.TopicAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
)
REFUSED_SETTINGS = (
    kafka.InvalidSessionTimeoutError,
    kafka.InconsistentGroupProtocolError,
    kafka.InvalidGroupIdError,
)
DAMAGED = (kafka.CorruptRecordException, ValueError, IndexError, ArithmeticError, EOFError)


async def connect(options: KafkaOptions, *, group: str | None) -> AIOKafkaConsumer:
    """A consumer that is connected and has read nothing, or Misconfigured or Disconnected."""
    login = await login_arguments(options)
    consumer = _consumer(options, login, group)
    await start(consumer, options, login, discard=stop, as_ours=as_ours)
    return consumer


async def stop(consumer: AIOKafkaConsumer) -> None:
    """Leave the group and disconnect; cut off what takes longer than FAREWELL. Never raises."""
    # It waits for requests whose answers may never come; without connections they fail at once.
    await end(consumer, consumer._client.close, within=FAREWELL)


def as_ours(error: Exception) -> HammerworkError:
    """What an error of the client means: Misconfigured where only somebody can help, else Disconnected."""
    told = f"{type(error).__name__}: {error}"
    match error:
        case HammerworkError():
            return error
        case kafka.UnsupportedCodecError():
            return Misconfigured(
                f"a record's compression cannot be read: {error}", hint="pip install 'hammerwork[kafka]'"
            )
        case kafka.OffsetOutOfRangeError():
            return Disconnected(f"records that were to be read are gone: {_shown_places(error)}")
        case kafka.RecordTooLargeError():
            return Misconfigured("a record is larger than a fetch", hint="raise partition_fetch_size")
        case _ if isinstance(error, FORBIDDEN):
            return Misconfigured(
                f"the broker forbids it: {told}",
                hint="the user needs Describe and Read on the topics, and Read on the group",
            )
        case _ if isinstance(error, LOGIN_REFUSED):
            return login_refused(error)
        case _ if isinstance(error, REFUSED_SETTINGS):
            return Misconfigured(
                f"the group refused us: {told}", hint="check group, session_timeout and its other members"
            )
        case _ if isinstance(error, DAMAGED) and not isinstance(error, UnicodeError | OSError):
            return Misconfigured(
                f"a record on the broker is damaged, and nothing behind it can be read: {told}",
                hint="let the partition be restored from a replica, or delete its records up to there",
            )
        case _:
            return Disconnected(told)


def _consumer(options: KafkaOptions, login: dict[str, Any], group: str | None) -> AIOKafkaConsumer:
    session = milliseconds(options.session_timeout)
    return AIOKafkaConsumer(
        bootstrap_servers=list(options.bootstrap),
        client_id="hammerwork",
        group_id=group,
        group_instance_id=options.instance_id if group is not None else None,
        # Offsets are Postgres' business: where the client would commit or jump by itself, it must not.
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        session_timeout_ms=session,
        heartbeat_interval_ms=max(1, session // 4),
        # Long enough for a group to gather, which it may take a session's time to do.
        request_timeout_ms=max(2 * session, 10_000),
        max_poll_interval_ms=milliseconds(options.max_poll_interval),
        metadata_max_age_ms=milliseconds(options.metadata_max_age),
        fetch_max_bytes=int(options.fetch_size),
        max_partition_fetch_bytes=int(options.partition_fetch_size),
        fetch_max_wait_ms=milliseconds(options.fetch_wait),
        client_rack=options.rack,
        **login,
    )


def _shown_places(error: kafka.OffsetOutOfRangeError) -> str:
    return ", ".join(
        f"{place.topic}/{place.partition} at {offset}" for place, offset in error.args[0].items()
    )
