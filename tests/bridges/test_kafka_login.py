"""Who may read a topic: every login on the real broker, and each refusal with what is to be done about it."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from hammerwork.bridges.kafka import KafkaBridge
from hammerwork.core.errors import Disconnected, Misconfigured
from hammerwork.core.postgres.database import Database

from ..services import free_port
from ..services.kafka import PASSWORD, USER, KafkaService, Secured
from .kafka_topic import Topic, pull_all

SECRET = "canary-secret"


@pytest.fixture
def secured(kafka_service: KafkaService) -> Secured:
    if kafka_service.secured is None:
        pytest.skip("this broker has no listener with a login")
    return kafka_service.secured


def token(subject: str = USER) -> str:
    """An unsecured one, as the broker of the tests takes it."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    now = int(time.time())
    return f"{part({'alg': 'none'})}.{part({'sub': subject, 'iat': now, 'exp': now + 300})}."


async def provided_token() -> str:
    return token()


def failing_provider() -> str:
    raise RuntimeError(SECRET)


class TokenEndpoint:
    """Answers a token to the client `gateway` with the right secret; counts how often it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.asked = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        user = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        form = await request.post()
        assert (form["grant_type"], form["scope"]) == ("client_credentials", "kafka")
        if user != f"gateway:{SECRET}":
            return web.json_response({"error": "invalid_client"}, status=401)
        return web.json_response({"access_token": token(), "token_type": "bearer", "expires_in": 300})


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    endpoint = TokenEndpoint()
    application = web.Application()
    application.router.add_post("/token", endpoint.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    endpoint.url = f"http://127.0.0.1:{port}/token"
    yield endpoint
    await runner.cleanup()


def password(mechanism: str, secret: str = PASSWORD) -> dict[str, str]:
    return {"mechanism": mechanism, "username": USER, "password": secret}


def oauth(endpoint: TokenEndpoint, secret: str = SECRET) -> dict[str, str]:
    client = {"client_id": "gateway", "client_secret": secret, "scope": "kafka"}
    return {"mechanism": "OAUTHBEARER", "token_url": endpoint.url, **client}


async def reads(topic: Topic, database: Database, **options: Any) -> None:
    """A bridge with these options gets the topic's only record."""
    await topic.send(b"hello")
    bridge = topic.bridge(database, **options)
    await bridge.open()
    try:
        assert [d.message.body for d in await pull_all(bridge, 1)] == [b"hello"]
    finally:
        await bridge.close()


async def refuses(bridge: KafkaBridge, kind: type[Exception], match: str) -> None:
    """It cannot be opened, says so, and no secret with it."""
    with pytest.raises(kind, match=match) as error:
        await bridge.open()
    told = f"{error.value!r} {getattr(error.value, 'hint', '')} {bridge.__dict__!r}"
    assert PASSWORD not in told
    assert SECRET not in told
    await bridge.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_user_with_a_password_reads(
    topic: Topic, database: Database, secured: Secured, mechanism: str
) -> None:
    await reads(topic, database, bootstrap=secured.sasl, sasl=password(mechanism))


async def test_a_login_over_tls_reads_and_an_unknown_authority_is_refused(
    topic: Topic, database: Database, secured: Secured
) -> None:
    login = password("SCRAM-SHA-256")
    files = {"ca_file": secured.ca_file}
    await reads(topic, database, bootstrap=secured.tls, sasl=login, tls=files)
    stranger = topic.bridge(database, bootstrap=secured.tls, sasl=login, tls=True)
    await refuses(stranger, Misconfigured, "TLS failed.*CERTIFICATE_VERIFY_FAILED")


async def test_a_client_of_a_token_endpoint_reads_and_asks_once(
    topic: Topic, database: Database, secured: Secured, endpoint: TokenEndpoint
) -> None:
    await reads(topic, database, bootstrap=secured.sasl, sasl=oauth(endpoint))
    assert endpoint.asked == 1


async def test_a_token_of_a_provider_of_ones_own_reads(
    topic: Topic, database: Database, secured: Secured
) -> None:
    provider = {"mechanism": "OAUTHBEARER", "provider": f"{__name__}:provided_token"}
    await reads(topic, database, bootstrap=secured.sasl, sasl=provider)


async def test_refusals_say_what_to_do_and_no_secret(
    topic: Topic,
    database: Database,
    secured: Secured,
    endpoint: TokenEndpoint,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def bridge(**options: Any) -> KafkaBridge:
        return topic.bridge(database, bootstrap=secured.sasl, **options)

    for mechanism in ("PLAIN", "SCRAM-SHA-512"):
        wrong = bridge(sasl=password(mechanism, SECRET))
        await refuses(wrong, Misconfigured, "refused the login")
    stranger = bridge(sasl=oauth(endpoint, SECRET[1:]))
    await refuses(stranger, Misconfigured, "token endpoint refused us with 401")
    failing = {"mechanism": "OAUTHBEARER", "provider": f"{__name__}:failing_provider"}
    await refuses(bridge(sasl=failing), Disconnected, "sasl.provider failed: RuntimeError")
    await refuses(bridge(connect_timeout=2), Disconnected, "no broker of")
    assert SECRET not in caplog.text


async def test_a_token_endpoint_that_is_away_is_tried_again_later(
    topic: Topic, database: Database, secured: Secured, endpoint: TokenEndpoint
) -> None:
    login = {**oauth(endpoint), "token_url": f"http://127.0.0.1:{free_port()}/token"}
    bridge = topic.bridge(database, bootstrap=secured.sasl, sasl=login)
    await refuses(bridge, Disconnected, "token endpoint is away")


async def test_nobody_at_the_address_is_a_broker_that_is_away(topic: Topic, database: Database) -> None:
    bridge = topic.bridge(database, bootstrap=f"127.0.0.1:{free_port()}")
    await refuses(bridge, Disconnected, "no broker of 127.0.0.1")


async def test_a_broker_that_does_not_answer_is_given_up(
    topic: Topic, database: Database, kafka_service: KafkaService
) -> None:
    bridge = topic.bridge(database, connect_timeout=0.5)
    kafka_service.suspend()
    try:
        await refuses(bridge, Disconnected, "answered within 0.5 s")
    finally:
        kafka_service.resume()


async def test_a_broker_that_falls_silent_does_not_keep_a_bridge_from_closing(
    topic: Topic, database: Database, kafka_service: KafkaService
) -> None:
    await topic.send()
    bridge = topic.bridge(database)
    await bridge.open()
    await pull_all(bridge, 1)
    kafka_service.suspend()
    try:
        await asyncio.wait_for(bridge.close(), 10)
    finally:
        kafka_service.resume()


async def test_a_topic_that_is_not_there_is_a_setting_to_be_mended(topic: Topic, database: Database) -> None:
    bridge = topic.bridge(database, topics=f"{topic.name},nowhere")
    await refuses(bridge, Misconfigured, "there is no topic nowhere")
