"""A LoggedEvent's time in text."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from hammerwork.core.event import LoggedEvent


@pytest.mark.parametrize("microsecond", [0, 1, 70, 123_000, 499_999, 999_999])
def test_a_time_is_written_to_the_microsecond(microsecond: int) -> None:
    for second in (0, 1, 59):
        at = datetime(2038, 1, 19, 3, 14, second, microsecond, UTC)
        event = LoggedEvent(1, "1", UUID(int=1), None, 1, "job.started", "q", "{}", at, False, "/s")
        assert event.time == at.isoformat().replace("+00:00", "Z")
