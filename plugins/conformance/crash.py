"""Tests in which a whole gateway is killed on the spot, between any two steps around its COMMIT."""

from __future__ import annotations

import signal

import pytest

from .trial import BridgeTrial

FAILPOINTS = ("intake.before_commit", "intake.committed", "intake.settled")
"""With messages pulled and nothing stored, with all stored and nothing settled, with both done."""


class CrashTests:
    """Part of BridgeContract: `hammerwork run` as a process, with one of core/failpoints.py armed."""

    @pytest.mark.parametrize("point", FAILPOINTS)
    async def test_a_gateway_killed_around_commit_loses_and_repeats_nothing(
        self, trial: BridgeTrial, point: str
    ) -> None:
        numbers = await trial.publish(20)
        code, output = await trial.run_to_its_end(f"{point}=kill@2")
        assert code == -signal.SIGKILL, f"{point} was not reached:\n{output[-4000:]}"
        async with trial.running(trial.intake()):
            await trial.all_stored(numbers)
        await trial.nothing_is_left()
