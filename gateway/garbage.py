"""What a process that runs for long tells Python's collector of cycles."""

from __future__ import annotations

import gc

SELDOM = 20_000
"""Containers that came and did not go before it looks: more than the batches under way are made of, which go
by themselves when they are settled."""


def collect_seldom() -> None:
    """To be called first of all: what is imported stays, too, and need not be looked at on the way."""
    gc.set_threshold(SELDOM, *gc.get_threshold()[1:])


def keep_what_is_built() -> None:
    """To be called when everything is built and nothing runs yet: what is there is never looked at again.

    Else a look at everything takes a tenth of a second, every few seconds under load, in which the event loop
    stands still.
    """
    gc.freeze()
