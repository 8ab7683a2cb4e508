"""One producer: made, started, thrown away, and what its errors mean to us."""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka

from ...clients.kafka.client import LOGIN_REFUSED, end, login_refused, start
from ...clients.kafka.login import login_arguments
from ...clients.kafka.options import milliseconds
from ...core.errors import Disconnected, HammerworkError, Misconfigured
from .options import KafkaSinkOptions

FAREWELL = 2.0
"""Seconds that a producer gets to end by itself; then its connections are cut."""

FORBIDDEN = {
    kafka.TopicAuthorizationFailedError: "Write and Describe on the topic",
    kafka.ClusterAuthorizationFailedError: "IdempotentWrite on the cluster",
    kafka.TransactionalIdAuthorizationFailed: "Write and Describe on the transactional id",
    kafka.GroupAuthorizationFailedError: "Read on the group that keeps the position",
}


async def connect(options: KafkaSinkOptions, *, transactional_id: str | None) -> AIOKafkaProducer:
    """A producer that has its id from the broker: whoever had the same transactional id before is fenced.

    Raises Misconfigured, MissingExtra and Disconnected.
    """
    login = await login_arguments(options)
    producer = make(options, login, transactional_id=transactional_id)
    await start(producer, options, login, discard=discard, as_ours=as_ours)
    return producer


def make(
    options: KafkaSinkOptions, login: dict[str, Any], *, transactional_id: str | None
) -> AIOKafkaProducer:
    """The producer, not connected. It is always idempotent, which implies acks=all."""
    timeout = milliseconds(options.request_timeout)
    return AIOKafkaProducer(
        bootstrap_servers=list(options.bootstrap),
        client_id="hammerwork",
        enable_idempotence=True,
        transactional_id=transactional_id,
        # An open transaction of a process that died keeps readers waiting until its successor, or this.
        transaction_timeout_ms=max(30_000, 2 * timeout),
        compression_type=None if options.compression == "none" else options.compression,
        max_batch_size=int(options.batch_bytes),
        request_timeout_ms=timeout,
        **login,
    )


async def discard(producer: AIOKafkaProducer) -> None:
    """End a producer in whatever state it is. Never raises, and takes no longer than twice FAREWELL."""

    async def cut() -> None:
        # It has no end of its own: an idempotent producer sends again for ever what no broker takes.
        producer._message_accumulator.fail_all(kafka.ProducerClosed())
        await producer.client.close()

    await end(producer, cut, within=FAREWELL)


def as_ours(error: Exception) -> HammerworkError:
    """What an error of the client means: Misconfigured where only somebody can help, else Disconnected."""
    told = f"{type(error).__name__}: {error}".removesuffix(": ")
    match error:
        case HammerworkError():
            return error
        case kafka.UnsupportedCodecError():
            return Misconfigured(
                f"this compression cannot be written: {error}", hint="pip install 'hammerwork[kafka]'"
            )
        case kafka.InvalidTransactionTimeout():
            return Misconfigured(
                f"the broker allows no such transactions: {told}",
                hint="raise its transaction.max.timeout.ms to 60 s at least, or lower request_timeout",
            )
        case kafka.InvalidTopicError():
            return Misconfigured(f"the topic's name is not allowed: {told}", hint="check topic")
        case _ if isinstance(error, LOGIN_REFUSED):
            return login_refused(error)
        case _ if type(error) in FORBIDDEN:
            return Misconfigured(
                f"the broker forbids it: {told}", hint=f"the user needs {FORBIDDEN[type(error)]}"
            )
        case _:
            return Disconnected(told)
