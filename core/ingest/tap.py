"""Tap: messages of a broker and what each would become are looked at; nothing is stored, all goes back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

from ..errors import Disconnected, Misconfigured
from ..message import Bridge, Delivery, LogBridge, Look, TappableBridge, Want
from .item import Item
from .preparation import Preparation

LINGER = timedelta(milliseconds=50)
MORE = 1.0
"""Seconds that those which came wait for others: meanwhile nobody else can have them."""


def look_at(bridge: Bridge, most: int, kept: Mapping[str, int | None]) -> Look:
    """What up to `most` messages of this bridge can be looked at through; `kept` are the offsets of a log.
    Raises Misconfigured."""
    if isinstance(bridge, TappableBridge):
        return bridge.tap(most, kept)
    if isinstance(bridge, LogBridge):
        raise Misconfigured(
            f"the messages of bridge {bridge.name!r} cannot be looked at without taking its partitions",
            hint="`hammerwork bridge dry-run` shows what becomes of a message that you have in a file",
        )
    return bridge


async def tap(look: Look, preparation: Preparation, most: int, patience: timedelta) -> list[Item]:
    """Up to `most` messages, and what each would become, by the same decoder and mapping as in the gateway.
    It waits for messages as long as `patience`. All are given back before this returns.

    Raises Disconnected and Misconfigured as the bridge does, Unavailable for what a transform lacks.
    """
    deadline = time.monotonic() + patience.total_seconds()
    held: list[Delivery] = []
    try:
        await look.open()
        try:
            while len(held) < most and (left := deadline - time.monotonic()) > 0:
                wait = timedelta(seconds=min(left, MORE))
                came = await look.pull(Want(count=most - len(held), wait=wait, linger=LINGER))
                if held and not came:
                    break
                held += came
            return await preparation.prepare(held)
        finally:
            with suppress(Disconnected):
                await look.release(held)
    finally:
        await look.close()
