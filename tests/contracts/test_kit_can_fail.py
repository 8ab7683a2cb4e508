"""Every test of the kit fails for a plugin that has the fault which the test is there to find."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hammerwork.plugins.conformance import BridgeContract, LogSinkContract, SinkContract
from hammerwork.plugins.conformance.choose import names_of_tests
from hammerwork.plugins.conformance.crash import CrashTests
from hammerwork.plugins.conformance.ingest import IngestTests
from hammerwork.plugins.conformance.log_sink_trial import log_sink_trial
from hammerwork.plugins.conformance.sink_trial import sink_trial
from hammerwork.plugins.conformance.trial import bridge_trial

from . import broken_bridges as broken
from . import broken_sinks as unfit
from . import log_shelf as shelves
from . import log_spool as logs
from .log_shelf import log_shelf
from .log_spool import log_spool_harness
from .shelf import shelf
from .spool_harness import spool_harness

BY_HAND, RUNNING, AMPLE = 0.4, 1.5, 60.0
"""Seconds of patience. Some faults run it out: where a test drives a plugin by hand, calls take milliseconds;
an intake, a relay or a worker has to begin first. The others are seen before, on however slow a machine."""
WORDS_OF_IMPATIENCE = (
    "a pull goes on", "are not taken", "both intakes", "deliveries are taken", "events arrive",
    "messages are", "messages came", "never settled", "not within", "nothing is left", "still has all",
    "the bridge notices",
)  # fmt: skip
ANSWERS_WITHIN = 0.7
RUN = {
    *names_of_tests(IngestTests),
    *names_of_tests(CrashTests),
    "test_a_destination_that_restarts_misses_nothing",
    "test_a_gateway_that_dies_between_send_and_position_repeats_one_batch",
    "test_a_gateway_that_dies_loses_no_event",
    "test_a_stop_and_a_start_repeat_nothing",
    "test_every_event_arrives_in_order_though_some_fail",
    "test_every_event_arrives_though_some_fail",
    "test_lost_answers_repeat_their_batches_only",
}
"""Tests of the second kind."""


@dataclass(frozen=True)
class Planted:
    """A plugin with a fault, the test that finds it, and words of what that test then says."""

    test: str
    plugin: type[Any]
    says: str
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def patience(self) -> float:
        if not any(words in self.says for words in WORDS_OF_IMPATIENCE):
            return AMPLE
        return RUNNING if self.test in RUN else BY_HAND

    def __str__(self) -> str:
        return "-".join(
            [self.plugin.__name__, self.test.removeprefix("test_"), *map(str, self.given.values())]
        )


KILLED = "test_a_gateway_killed_around_commit_loses_and_repeats_nothing"
LOST = "not within .*: .* messages are jobs"

BRIDGES = [
    Planted("test_it_opens_closes_and_opens_again", broken.OpensOnce, "it was closed"),
    Planted("test_it_opens_closes_and_opens_again", broken.Talkative, "a secret was logged"),
    Planted("test_a_pull_brings_no_more_than_is_wanted", broken.Greedy, "<= 3"),
    Planted("test_a_pull_brings_about_the_wanted_size", broken.Heavy, "<= "),
    Planted("test_a_pull_waits_as_long_as_is_wanted", broken.Slow, "wait 0.0 s took"),
    Planted("test_closing_ends_a_pull", broken.Endless, "a pull goes on"),
    Planted("test_a_broker_that_restarts_is_noticed", broken.Deaf, "the bridge notices"),
    Planted("test_what_is_settled_does_not_come_again", broken.Lazy, "nothing is left"),
    Planted("test_what_is_not_settled_comes_again", broken.Hasty, "0 of 4 messages came"),
    Planted("test_of_two_pulls_only_the_settled_one_is_gone", broken.Sweeping, "0 of 3 messages came"),
    Planted(
        "test_settling_late_is_no_error_and_settles_nothing_else", broken.Renumbering, "was never settled"
    ),
    Planted("test_what_is_released_comes_again", broken.Forgetful, "0 of 5 messages came"),
    Planted("test_what_is_in_hand_when_a_bridge_dies_comes_again", broken.Heartless, "that should not"),
    Planted("test_resting_loses_nothing", broken.Wasteful, "0 of 4 messages came"),
    Planted("test_others_have_what_a_resting_bridge_received_ahead", broken.Hoarding, "0 of 4 messages came"),
    Planted("test_lag_counts_and_takes_nothing", broken.Miscounting, "0 of 5 messages came"),
    Planted("test_the_identity_is_the_same_on_every_delivery", broken.Renaming, "=="),
    Planted("test_attempts_rise_with_every_delivery", broken.Uncounting, r"\[1, 1, 1\]"),
    Planted("test_deliveries_come_in_order_and_come_again_in_order", broken.Shuffling, "=="),
    Planted("test_the_guarantee_is_one_of_two_levels", broken.Boasting, "exactly-once"),
    Planted("test_a_body_comes_through", broken.Decoding, "==", {"body": "every byte"}),
    Planted("test_a_body_comes_through", broken.Decoding, "==", {"body": "not utf-8"}),
    Planted("test_a_body_comes_through", broken.Stripping, "==", {"body": "zeros"}),
    Planted("test_a_body_comes_through", broken.Stripping, "==", {"body": "lines"}),
    Planted("test_a_huge_body_comes_through", broken.Cutting, "65536"),
    Planted("test_headers_come_through", broken.Latin, "=="),
    Planted("test_headers_are_json", broken.Raw, "bytes is not JSON"),
    Planted("test_what_the_broker_carries_comes_through", broken.Keyless, "=="),
    Planted("test_secrets_are_not_shown", broken.Showing, "a secret is shown"),
    Planted("test_secrets_are_not_shown", broken.OpenHearted, "a secret is shown"),
    Planted("test_secrets_are_not_shown_by_a_broker_that_is_away", broken.Blaming, "a secret is shown"),
    Planted("test_options_may_be_set_by_a_file_or_by_variables", broken.Untyped, "=="),
    Planted("test_every_message_becomes_a_job_and_nothing_is_left", broken.Lazy, "nothing is left"),
    Planted("test_nothing_is_settled_before_commit", broken.Hasty, "still has all of 12"),
    Planted(
        "test_what_comes_again_after_its_commit_makes_no_second_job", broken.Renaming, "stored more than once"
    ),
    Planted("test_poison_becomes_a_dead_letter_and_blocks_nothing", broken.Judging, LOST),
    Planted("test_poison_becomes_a_dead_letter_and_blocks_nothing", broken.Unfair, "nothing is left"),
    Planted("test_saturation_passes_without_loss", broken.Dropping, LOST),
    Planted("test_a_pause_in_the_middle_loses_nothing", broken.Wasteful, LOST),
    Planted("test_a_stop_in_the_middle_loses_nothing", broken.Tidying, LOST),
    Planted("test_a_cancellation_in_the_middle_loses_nothing", broken.Tidying, LOST),
    Planted("test_what_is_handed_back_comes_again", broken.Forgetful, LOST),
    Planted("test_a_broker_that_restarts_loses_nothing", broken.Deaf, LOST),
    Planted("test_cut_connections_lose_nothing", broken.Deaf, LOST),
    Planted("test_a_zombie_stores_nothing_twice", broken.Renaming, "stored more than once"),
    Planted("test_two_gateways_share_the_messages", broken.Jealous, "both intakes run"),
    Planted(KILLED, broken.Hasty, LOST, {"point": "intake.before_commit"}),
    Planted(KILLED, broken.Renaming, "stored more than once", {"point": "intake.committed"}),
]


LOGS = [
    Planted("test_a_stop_in_the_middle_loses_nothing", logs.Forward, "messages are pulled"),
    Planted("test_a_log_is_read_again_from_what_was_released", logs.Stubborn, "0 of 6 messages came"),
    Planted("test_deliveries_of_a_log_have_rising_positions", logs.Unplaced, "does not rise"),
    Planted("test_deliveries_come_in_order_and_come_again_in_order", logs.Scattered, "=="),
]

SINKS = [
    Planted("test_it_opens_closes_and_opens_again", unfit.OpensOnce, "=="),
    Planted("test_it_opens_closes_and_opens_again", unfit.Talkative, "a secret was logged"),
    Planted("test_an_event_arrives_whole", unfit.Latin, "=="),
    Planted("test_the_identity_is_the_same_on_every_try", unfit.Renaming, "=="),
    Planted("test_what_was_not_taken_is_not_done", unfit.Careless, "isinstance"),
    Planted("test_what_is_refused_for_good_is_dead", unfit.Hopeful, "isinstance"),
    Planted("test_what_is_too_large_is_dead", unfit.Hopeful, "isinstance"),
    Planted("test_each_of_many_at_once_has_its_own_outcome", unfit.Mixing, "=="),
    Planted("test_a_destination_that_hangs_does_not_hold_us_for_ever", unfit.Waiting, "takes longer"),
    Planted("test_closing_ends_a_delivery", unfit.Waiting, "a delivery goes on"),
    Planted(
        "test_a_destination_that_restarts_is_reached_again", unfit.Faithful, "deliveries are taken again"
    ),
    Planted("test_every_event_arrives_though_some_fail", unfit.Twice, "sent again"),
    Planted("test_every_event_arrives_though_some_fail", unfit.Careless, "not within .* events arrive"),
    Planted("test_a_gateway_that_dies_loses_no_event", unfit.Detached, "not within .* events arrive"),
    Planted("test_the_guarantee_is_one_of_two_levels", unfit.Boasting, "exactly-once"),
    Planted("test_secrets_are_not_shown", unfit.Showing, "a secret is shown"),
    Planted("test_secrets_are_not_shown_by_a_destination_that_is_away", unfit.Blaming, "a secret is shown"),
    Planted("test_options_may_be_set_by_a_file_or_by_variables", unfit.Untyped, "=="),
]

DIED = "test_a_gateway_that_dies_between_send_and_position_repeats_one_batch"
KEPT = "test_a_position_that_a_sink_keeps_is_that_of_its_last_batch"

LOG_SINKS = [
    Planted("test_it_opens_closes_and_opens_again", shelves.OpensOnce, "=="),
    Planted("test_it_opens_closes_and_opens_again", shelves.Talkative, "a secret was logged"),
    Planted("test_an_event_arrives_whole", shelves.Latin, "=="),
    Planted("test_every_event_of_a_batch_arrives_once_and_in_order", shelves.Shuffling, "out of order"),
    Planted("test_every_event_of_a_batch_arrives_once_and_in_order", shelves.Twice, "240 == 120"),
    Planted("test_the_identity_is_the_same_on_every_try", shelves.Renaming, "=="),
    Planted("test_what_was_not_taken_is_not_done", shelves.Careless, "all is done"),
    Planted("test_what_was_not_taken_is_not_done", shelves.Sorting, "done that never arrived"),
    Planted("test_what_was_not_taken_is_not_done", shelves.Short, "7 outcomes of 12 events"),
    Planted("test_a_partial_failure_tears_no_job_apart", shelves.Hurried, "behind one that was not"),
    Planted("test_what_is_too_large_is_dead_and_stops_no_other", shelves.Hopeful, "are not taken"),
    Planted("test_what_is_too_large_is_dead_and_stops_no_other", shelves.Stopping, "=="),
    Planted("test_what_is_refused_for_good_is_dead", shelves.Hopeful, "are not taken"),
    Planted("test_a_destination_that_hangs_does_not_hold_us_for_ever", shelves.Waiting, "a close takes"),
    Planted("test_a_destination_that_hangs_does_not_hold_us_for_ever", shelves.Deaf, "a send goes on"),
    Planted("test_a_destination_that_restarts_is_reached_again", shelves.Faithful, "are not taken"),
    Planted("test_a_destination_that_is_away_is_said_to_be", shelves.Pretending, "neither open nor send"),
    Planted("test_a_destination_that_is_away_is_said_to_be", shelves.Blaming, "a secret is shown"),
    Planted("test_every_event_arrives_in_order_though_some_fail", shelves.Careless, "events arrive"),
    Planted("test_every_event_arrives_in_order_though_some_fail", shelves.Hurried, "out of order"),
    Planted("test_a_destination_that_restarts_misses_nothing", shelves.Faithful, "events arrive"),
    Planted(DIED, shelves.Detached, "events arrive"),
    Planted(DIED, shelves.Lagging, "though the sink keeps the position"),
    Planted("test_lost_answers_repeat_their_batches_only", shelves.Repeating, "known to be, was sent again"),
    Planted("test_a_stop_and_a_start_repeat_nothing", shelves.Twice, "sent again"),
    Planted(KEPT, shelves.Lagging, "=="),
    Planted(KEPT, shelves.Parted, "half done"),
    Planted("test_the_guarantee_is_one_of_two_levels", shelves.Boasting, "exactly-once needs"),
    Planted("test_secrets_are_not_shown", shelves.Showing, "a secret is shown"),
    Planted("test_options_may_be_set_by_a_file_or_by_variables", shelves.Untyped, "=="),
]


def arguments(planted: Planted, folder: Path) -> dict[str, Any]:
    """What the test is called with, beside its trial."""
    return {**planted.given, "tmp_path": folder} if "by_a_file" in planted.test else planted.given


def kind(plugin: type[Any]) -> str:
    """As settings name it. Under --import-mode=importlib the module is known by its path."""
    return f"hammerwork.{plugin.__module__.removeprefix('hammerwork.')}:{plugin.__name__}"


@pytest.mark.parametrize("planted", BRIDGES, ids=str)
async def test_a_broken_bridge_is_found(planted: Planted, dsn: str, tmp_path: Path) -> None:
    with pytest.raises((Exception, pytest.fail.Exception), match=planted.says):
        async with (
            spool_harness(patience=planted.patience) as harness,
            bridge_trial(planted.plugin, kind(planted.plugin), harness, dsn) as trial,
        ):
            await getattr(BridgeContract(), planted.test)(trial, **arguments(planted, tmp_path))


@pytest.mark.parametrize("planted", LOGS, ids=str)
async def test_a_broken_log_bridge_is_found(planted: Planted, dsn: str) -> None:
    with pytest.raises((Exception, pytest.fail.Exception), match=planted.says):
        async with (
            log_spool_harness(dsn, patience=planted.patience) as harness,
            bridge_trial(planted.plugin, kind(planted.plugin), harness, dsn) as trial,
        ):
            await getattr(BridgeContract(), planted.test)(trial)


@pytest.mark.parametrize("planted", SINKS, ids=str)
async def test_a_broken_sink_is_found(planted: Planted, dsn: str, tmp_path: Path) -> None:
    with pytest.raises((Exception, pytest.fail.Exception), match=planted.says):
        async with (
            shelf(patience=planted.patience, answers_within=ANSWERS_WITHIN) as harness,
            sink_trial(planted.plugin, kind(planted.plugin), harness, dsn) as trial,
        ):
            await getattr(SinkContract(), planted.test)(trial, **arguments(planted, tmp_path))


@pytest.mark.parametrize("planted", LOG_SINKS, ids=str)
async def test_a_broken_log_sink_is_found(planted: Planted, dsn: str, tmp_path: Path) -> None:
    with pytest.raises((Exception, pytest.fail.Exception), match=planted.says):
        async with (
            log_shelf(patience=planted.patience, answers_within=ANSWERS_WITHIN) as harness,
            log_sink_trial(planted.plugin, kind(planted.plugin), harness, dsn) as trial,
        ):
            await getattr(LogSinkContract(), planted.test)(trial, **arguments(planted, tmp_path))


def test_every_test_of_the_kit_is_seen_to_fail() -> None:
    assert {planted.test for planted in [*BRIDGES, *LOGS]} == set(names_of_tests(BridgeContract))
    assert {planted.test for planted in SINKS} == set(names_of_tests(SinkContract))
    assert {planted.test for planted in LOG_SINKS} == set(names_of_tests(LogSinkContract))
