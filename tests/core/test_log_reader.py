"""Slices of the log: where they may be cut, and the order within them."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from hammerwork.core.event import LoggedEvent
from hammerwork.core.publish.log_reader import cut_of, in_order, torn_by

JOBS = {letter: UUID(int=number) for number, letter in enumerate("ABC", 1)}


def log_of(text: str) -> list[LoggedEvent]:
    """`A1 B1 A2`: events of jobs with their sequence numbers; `A1+` is a copy that is sent again."""
    return [
        LoggedEvent(
            log_id=place,
            xid=str(place),
            id=UUID(int=place),
            job_id=JOBS.get(word[0]),
            sequence=int(word.strip("+")[1:]),
            type="job.started",
            queue="orders",
            text="{}",
            at=datetime.now(UTC),
            again=word.endswith("+"),
            source="/test",
        )
        for place, word in enumerate(text.split())
    ]


@pytest.mark.parametrize(
    ("log", "most", "cut"),
    [
        ("A1 B1 A2 B2", 3, 3),
        ("A1 B1 A2 B2", 0, 0),
        ("A1 A3 B1 A2", 3, 1),  # A2 belongs before A3, so the cut goes before A3
        ("A1 A3 B1 A2", 4, 4),
        ("A1 A3 B2 A2 B1", 4, 1),  # one tear leads to another
        ("A3 B1 A2", 2, 0),
        ("A3 B1 A2 B2", 3, 3),
        ("A1 A2 A1+ A2+", 3, 3),  # what is sent again belongs where it is
        ("-0 -0 -0", 2, 2),  # no job, no order
    ],
)
def test_a_cut_tears_no_job_apart(log: str, most: int, cut: int) -> None:
    assert cut_of(torn_by(log_of(log), {}), most) == cut


def test_what_has_committed_beyond_the_horizon_holds_back_what_belongs_behind_it() -> None:
    log = log_of("A1 B1 A3 B2")
    assert cut_of(torn_by(log, {JOBS["A"]: 2}), 4) == 2
    assert cut_of(torn_by(log, {JOBS["A"]: 4, JOBS["C"]: 1}), 4) == 4


def test_within_a_slice_a_jobs_events_go_by_their_sequence() -> None:
    def told(text: str) -> list[int]:
        return [event.sequence for event in in_order(log_of(text))]

    assert told("A1 B1 A3 B2 A2") == [1, 1, 2, 2, 3]
    assert told("A1 A2 A3") == [1, 2, 3]
    assert told("A3 A1+ A2") == [2, 1, 3]
