"""The options of a Kafka bridge: what is understood, what is refused and why, and what is promised."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hammerwork.bridges.kafka import KafkaBridge, KafkaOptions
from hammerwork.clients.kafka.options import OAuthLogin, PasswordLogin
from hammerwork.clients.options import TlsOptions
from hammerwork.core.errors import Misconfigured
from hammerwork.core.message import EXACTLY_ONCE
from hammerwork.core.postgres.database import Database
from hammerwork.gateway.message_bridge import MessageBridge
from hammerwork.gateway.settings import load

from ..services.kafka import KafkaService
from .kafka_topic import Topic, topic_on

PLAIN = {"mechanism": "PLAIN", "username": "u", "password": "s3cret"}
OAUTH = {"mechanism": "OAUTHBEARER", "token_url": "https://id.test/token", "client_id": "c"}


def options(**given: Any) -> KafkaOptions:
    return KafkaOptions.model_validate({"bootstrap": "k1:9092", "topics": "orders", **given})


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"bootstrap": ""}, "at least 1 item"),
        ({"bootstrap": "k1"}, "expects host:port"),
        ({"bootstrap": "kafka://k1:9092"}, "expects host:port"),
        ({"bootstrap": "u:p@k1:9092"}, "expects host:port"),
        ({"topics": ""}, "needs topics or a pattern"),
        ({"pattern": ".*"}, "needs topics or a pattern"),
        ({"topics": "a b"}, "is no topic's name"),
        ({"topics": "", "pattern": "("}, "is no regular expression"),
        ({"exclude": "x"}, "exclude leaves topics out of a pattern"),
        ({"start": "yesterday"}, "start"),
        ({"start": "2026-01-31T00:00:00"}, "needs a time zone"),
        ({"on_gap": "ignore"}, "on_gap"),
        ({"identity": "key"}, "identity"),
        ({"sasl": {**PLAIN, "mechanism": "GSSAPI"}}, "sasl"),
        ({"sasl": {**PLAIN, "password": ""}}, "sasl"),
        ({"sasl": OAUTH}, "needs token_url, client_id and client_secret, or a provider"),
        ({"sasl": {**OAUTH, "provider": "a:b"}}, "a token endpoint or a provider, not both"),
        ({"instance_id": "a b"}, "instance_id"),
        ({"session_timeout": 0.1}, "session_timeout"),
        ({"max_poll_interval": 1}, "must not be shorter than session_timeout"),
        ({"brokers": "k1:9092"}, "brokers"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason) as refused:
        options(**given)
    assert "s3cret" not in str(refused.value)


def test_a_pattern_matches_whole_names_without_what_it_excludes() -> None:
    matcher = options(topics="", pattern=r"orders|orders\..*", exclude=r".*\.dead").matcher()
    assert matcher is not None
    names = ["orders", "orders.eu", "orders.eu.dead", "my.orders", "orders2"]
    assert [name for name in names if matcher.match(name)] == ["orders", "orders.eu"]


def test_the_environment_says_it_all(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    found = load(
        None,
        {
            "HAMMERWORK_DATABASE_URL": "postgresql://h/d",
            "HAMMERWORK_KAFKA_BOOTSTRAP": "k1:9092,[::1]:9093",
            "HAMMERWORK_KAFKA_TOPICS": "orders,returns",
            "HAMMERWORK_KAFKA_TO_QUEUE": "shop",
            "HAMMERWORK_BRIDGES__KAFKA__START": "2026-01-31T00:00:00Z",
            "HAMMERWORK_BRIDGES__KAFKA__TLS__CA_FILE": "/etc/ca.pem",
            "HAMMERWORK_BRIDGES__KAFKA__SASL__MECHANISM": "SCRAM-SHA-512",
            "HAMMERWORK_BRIDGES__KAFKA__SASL__USERNAME": "u",
            "HAMMERWORK_BRIDGES__KAFKA__SASL__PASSWORD_FILE": str(secret),
            "HAMMERWORK_BRIDGES__KAFKA__SESSION_TIMEOUT": "20s",
            "HAMMERWORK_BRIDGES__KAFKA__FETCH_SIZE": "16MiB",
        },
    )
    bridge = found.bridges["kafka"]
    read = bridge.options
    assert isinstance(read, KafkaOptions)
    assert (bridge.type, bridge.to_queue) == ("kafka", "shop")
    assert (read.bootstrap, read.topics) == (("k1:9092", "[::1]:9093"), ("orders", "returns"))
    assert read.start == datetime(2026, 1, 31, tzinfo=UTC)
    assert read.tls == TlsOptions(ca_file=Path("/etc/ca.pem"))
    assert isinstance(read.sasl, PasswordLogin)
    assert read.sasl.password.get_secret_value() == "s3cret"
    assert read.session_timeout == timedelta(seconds=20)
    assert read.fetch_size == 16 * 1024 * 1024
    assert "s3cret" not in f"{found!r} {[*found.sources()]}"


def test_tls_by_a_word_and_a_login_by_a_table() -> None:
    found = load(
        None,
        {
            "HAMMERWORK_DATABASE_URL": "postgresql://h/d",
            "HAMMERWORK_KAFKA_BOOTSTRAP": "k1:9092",
            "HAMMERWORK_BRIDGES__KAFKA__PATTERN": "orders.*",
            "HAMMERWORK_BRIDGES__KAFKA__TLS": "true",
            "HAMMERWORK_BRIDGES__KAFKA__SASL": '{"mechanism": "OAUTHBEARER", "provider": "a:b"}',
        },
    ).bridges["kafka"]
    assert isinstance(found.options, KafkaOptions)
    assert found.options.tls is True
    assert found.options.sasl == OAuthLogin(mechanism="OAUTHBEARER", provider="a:b")


def test_a_message_bridge_reads_kafka_with_the_same_options() -> None:
    bridge = MessageBridge().from_kafka("k1:9092", "orders", "returns", start="latest")
    assert isinstance(bridge.source, KafkaBridge)
    with pytest.raises(Misconfigured, match=r"the kafka bridge 'kafka' cannot be: bootstrap: .*host:port"):
        MessageBridge().from_kafka("k1", "orders")


async def test_files_that_cannot_be_used_are_refused_when_it_opens(topic: Topic, database: Database) -> None:
    bridge = topic.bridge(database, tls={"ca_file": "/nowhere.pem"})
    with pytest.raises(Misconfigured, match="TLS files cannot be used"):
        await bridge.open()


# --- what it promises ---


async def test_it_promises_what_the_topics_are(kafka_service: KafkaService, database: Database) -> None:
    async with topic_on(kafka_service, cleanup_policy="compact,delete", retention_ms="3600000") as topic:
        found = await topic.bridge(database, start="latest", on_gap="skip").guarantee()
    assert found.level == EXACTLY_ONCE
    assert f"{topic.name} (1 partitions)" in found.because
    told = "\n".join(found.warnings)
    for expected in ("one partition", "is compacted", "keeps records for 1:00:00", "'latest'", "'skip'"):
        assert expected in told


async def test_it_warns_of_nothing_where_nothing_is_to_be_feared(
    wide_topic: Topic, database: Database
) -> None:
    found = await wide_topic.bridge(database, identity={"header": "id"}).guarantee()
    assert found.warnings == ()
    assert "its header id" in found.because


async def test_a_pattern_that_matches_nothing_yet_is_worth_a_warning(
    topic: Topic, database: Database
) -> None:
    found = await topic.bridge(database, topics=[], pattern="nothing-of-the-kind").guarantee()
    assert found.warnings == ("no topic matches 'nothing-of-the-kind' yet",)
