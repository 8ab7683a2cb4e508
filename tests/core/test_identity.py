"""Ids carry their time and their slot, and a slot is the same everywhere and for ever."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from hammerwork.core.identity import SLOTS, new_id, slot_for, slot_of


def test_an_id_is_a_uuid_version_7_of_this_millisecond() -> None:
    before = time.time_ns() // 1_000_000
    job_id = new_id()
    after = time.time_ns() // 1_000_000
    assert (job_id.version, job_id.variant) == (7, "specified in RFC 4122")
    assert before <= job_id.int >> 80 <= after


@given(st.integers(0, SLOTS - 1))
def test_the_slot_that_an_id_was_made_with_is_read_from_it(slot: int) -> None:
    job_id = new_id(slot)
    assert slot_of(job_id) == slot
    assert job_id.version == 7


def test_ids_of_one_slot_and_one_millisecond_differ() -> None:
    assert len({new_id(7) for _ in range(20_000)}) == 20_000


def test_ids_without_a_slot_spread_over_all_slots() -> None:
    assert len({slot_of(new_id()) for _ in range(20_000)}) == SLOTS


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_the_slot_of_a_key_is_a_pure_function_in_range(parts: list[str]) -> None:
    assert slot_for(*parts) == slot_for(*parts)
    assert 0 <= slot_for(*parts) < SLOTS


def test_the_slot_of_a_key_is_the_same_in_every_version() -> None:
    # Written down once: a change would send redelivered messages past their inbox rows.
    assert slot_for("orders-in", "m-1") == 461
    assert slot_for("customer-42") == 42


def test_the_parts_of_a_key_are_kept_apart() -> None:
    assert slot_for("ab", "c") != slot_for("a", "bc")


def test_a_key_that_no_encoding_takes_still_has_a_slot() -> None:
    assert 0 <= slot_for("\ud800") < SLOTS
