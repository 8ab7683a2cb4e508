"""Tests of what must come through a bridge unharmed, of what must never show, and of its settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from ...core.errors import HammerworkError
from ...core.job import Json
from ...core.message import Message
from .choose import needs
from .settings import refusal_of_an_unknown_option
from .trial import BridgeTrial

HUGE = 1024 * 1024

BODIES = {
    "empty": b"",
    "every byte": bytes(range(256)),
    "zeros": b"\0" * 16,
    "unicode": "naïve ✓ 語 \U0001f528".encode(),
    "not utf-8": b"\xff\xfe\xc3\x28",
    "lines": b"a\r\nb\n\n\tc ",
}

HEADERS: Mapping[str, Json] = {
    "plain": "text",
    "unicode": "naïve ✓ 語",
    "long": "x" * 2000,
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}

CARRIED: Mapping[str, object] = {
    "id": "producer/42",
    "key": "naïve key",
    "content_type": "application/vnd.shop+json",
    "content_encoding": "identity",
    "correlation_id": "order-42",
    "priority": 3,
    "timestamp": datetime(2026, 11, 24, 12, 30, 15, tzinfo=UTC),
}


class FidelityTests:
    """Part of BridgeContract."""

    async def _through(self, trial: BridgeTrial, message: Message) -> Message:
        """The message as it comes out of the bridge."""
        bridge = await trial.opened()
        await trial.harness.publish([message])
        (delivery,) = await trial.take(bridge, 1)
        return delivery.message

    @pytest.mark.parametrize("body", list(BODIES))
    async def test_a_body_comes_through(self, trial: BridgeTrial, body: str) -> None:
        sent = trial.message(0)._replace(body=BODIES[body], content_type=None)
        assert (await self._through(trial, sent)).body == BODIES[body]

    async def test_a_huge_body_comes_through(self, trial: BridgeTrial) -> None:
        """A mebibyte, or the largest that the broker takes."""
        size = min(HUGE, trial.capabilities.largest or HUGE)
        body = (bytes(range(256)) * (size // 256 + 1))[:size]
        sent = trial.message(0)._replace(body=body, content_type=None)
        came = (await self._through(trial, sent)).body
        assert len(came) == size
        assert came == body

    @needs(lambda capabilities: "headers" in capabilities.carries)
    async def test_headers_come_through(self, trial: BridgeTrial) -> None:
        came = await self._through(trial, trial.message(0)._replace(headers=HEADERS))
        assert {name: came.headers.get(name) for name in HEADERS} == HEADERS

    async def test_headers_are_json(self, trial: BridgeTrial) -> None:
        """Whatever the broker puts beside a message must fit into a job and into a dead letter."""
        came = await self._through(trial, trial.message(0))
        for carried in (came.headers, came.coordinates):
            assert json.loads(json.dumps(dict(carried), allow_nan=False)) == dict(carried)

    async def test_what_the_broker_carries_comes_through(self, trial: BridgeTrial) -> None:
        expected = {name: value for name, value in CARRIED.items() if name in trial.capabilities.carries}
        came = await self._through(trial, trial.message(0)._replace(**expected))  # type: ignore[arg-type]
        assert {name: getattr(came, name) for name in expected} == expected

    # --- what must never show ---

    async def test_secrets_are_not_shown(self, trial: BridgeTrial) -> None:
        """Not by the objects, nor by what is raised; what is logged is searched at the end of every test."""
        said = [repr(trial.options), str(trial.options), repr(trial.bridge()), str(trial.bridge())]
        bridge = await trial.opened()
        said += [repr(bridge), repr(await bridge.guarantee())]
        said.append(refusal_of_an_unknown_option(trial.plugin, trial.harness.options))
        shown = [secret for secret in trial.harness.secrets if any(secret in text for text in said)]
        assert not shown, "a secret is shown by a repr or an error"

    async def test_secrets_are_not_shown_by_a_broker_that_is_away(self, trial: BridgeTrial) -> None:
        bridge = trial.plugin(
            trial.name, trial.plugin.Options.model_validate(await trial.harness.unreachable())
        )
        said = []
        for act in (bridge.open, bridge.guarantee):
            try:
                await act()
            except HammerworkError as error:
                said.append(f"{error} {error!r} {getattr(error, 'hint', '')}")
            finally:
                await bridge.close()
        assert said, "neither open nor guarantee raises Disconnected or Misconfigured where nobody answers"
        shown = [secret for secret in trial.harness.secrets if any(secret in text for text in said)]
        assert not shown, "a secret is shown by an error"
