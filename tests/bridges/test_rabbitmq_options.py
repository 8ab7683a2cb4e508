"""What an operator may set: declaring, refusals that name the setting, the guarantee, TLS."""

from __future__ import annotations

import builtins
import logging
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiormq
import pytest
import structlog
from aiormq import spec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from hammerwork.bridges.rabbitmq import RabbitmqBridge
from hammerwork.core.errors import Misconfigured, MissingExtra

from ..services.proxy import FaultProxy
from ..services.rabbitmq import RabbitmqService
from .rabbitmq_producer import (
    SOON,
    Producer,
    pull_all,
    pull_one,
    stored,
)


async def test_verify_refuses_a_queue_that_does_not_exist(producer: Producer) -> None:
    options = producer.options(queue="test.nothing")
    with pytest.raises(Misconfigured, match=r"no queue 'test\.nothing'"):
        await RabbitmqBridge("orders", options).open()


async def test_create_makes_exchange_queue_and_bindings(producer: Producer) -> None:
    exchange = f"{producer.queue}.exchange"
    await producer.channel.queue_delete(producer.queue)
    options = producer.options(
        declare="create",
        exchange={"name": exchange, "type": "topic"},
        bindings=[{"exchange": exchange, "routing_key": "order.*"}],
        arguments={"x-max-length": 100},
    )
    bridge = RabbitmqBridge("orders", options)
    await bridge.open()
    properties = spec.Basic.Properties(message_id="a")
    await producer.send_raw(b"1", properties, to="order.paid", exchange=exchange)
    await producer.send_raw(b"2", properties, to="invoice.paid", exchange=exchange)
    message = await pull_one(bridge)
    assert message.body == b"1"
    assert message.coordinates["exchange"] == exchange
    assert message.coordinates["routing_key"] == "order.paid"
    await bridge.close()
    await bridge.open()  # declaring what is there already is no error
    await bridge.close()
    await producer.channel.exchange_delete(exchange)


async def test_create_refuses_a_queue_that_exists_with_other_properties(producer: Producer) -> None:
    options = producer.options(declare="create", arguments={"x-max-length": 5})
    with pytest.raises(Misconfigured, match="x-max-length") as refused:
        await RabbitmqBridge("orders", options).open()
    assert "declare = 'verify'" in refused.value.hint


async def test_create_refuses_a_binding_to_an_exchange_that_does_not_exist(producer: Producer) -> None:
    options = producer.options(declare="create", bindings=[{"exchange": "test.nothing"}])
    with pytest.raises(Misconfigured, match=r"no exchange 'test\.nothing'"):
        await RabbitmqBridge("orders", options).open()


async def test_verify_does_not_take_what_only_create_can_do(producer: Producer) -> None:
    with pytest.raises(ValidationError, match="bindings take effect with declare = 'create' only"):
        producer.options(bindings=[{"exchange": "x"}])


async def test_a_quorum_queue_counts_the_attempts(producer: Producer) -> None:
    await producer.channel.queue_delete(producer.queue)
    bridge = RabbitmqBridge("orders", producer.options(declare="create", queue_type="quorum"))
    await bridge.open()
    await producer.send(message_id="a")
    deliveries = await pull_all(bridge, 1)
    assert deliveries[0].message.attempt is None
    await bridge.release(deliveries)
    deliveries = await pull_all(bridge, 1)
    assert deliveries[0].message.attempt == 2
    await bridge.settle(stored(deliveries))
    await bridge.close()
    assert await producer.ready() == 0


async def test_one_bridge_at_a_time_with_a_single_active_consumer(producer: Producer) -> None:
    await producer.channel.queue_delete(producer.queue)
    options = producer.options(declare="create", single_active_consumer=True)
    first, second = RabbitmqBridge("orders", options), RabbitmqBridge("orders", options)
    await first.open()
    await second.open()
    for _ in range(4):
        await producer.send()
    assert len(await pull_all(first, 4)) == 4
    assert await second.pull(SOON) == []
    await first.close()
    assert len(await pull_all(second, 4)) == 4
    await second.close()


async def test_the_consumer_with_the_higher_priority_gets_the_messages(producer: Producer) -> None:
    low = RabbitmqBridge("low", producer.options())
    high = RabbitmqBridge("high", producer.options(consumer_priority=10, consumer_tag="high"))
    await low.open()
    await high.open()
    for _ in range(4):
        await producer.send()
    assert len(await pull_all(high, 4)) == 4
    assert await low.pull(SOON) == []
    await low.close()
    await high.close()


async def test_a_wrong_password_is_refused_without_being_shown(
    producer: Producer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    options = producer.options(url=producer.url.replace("guest:guest", "guest:s3cret%2Fword"))
    bridge = RabbitmqBridge("orders", options)
    with pytest.raises(Misconfigured, match="ACCESS_REFUSED") as refused:
        await bridge.open()
    assert "password" in refused.value.hint
    shown = (
        f"{refused.value!r} {refused.value.__cause__!r} {options!r} {vars(bridge)['_options']} {caplog.text}"
    )
    assert "s3cret" not in shown


async def test_the_log_shows_the_broker_but_not_the_password(producer: Producer) -> None:
    with structlog.testing.capture_logs() as lines:
        bridge = RabbitmqBridge("orders", producer.options())
        await bridge.open()
        await bridge.close()
    [opened] = lines
    assert opened["url"] == producer.url.replace("guest:guest@", "")


async def test_a_wrong_vhost_is_refused_by_name(producer: Producer) -> None:
    with pytest.raises(Misconfigured, match="vhost nowhere not found") as refused:
        await RabbitmqBridge("orders", producer.options(url=f"{producer.url}nowhere")).open()
    assert "vhost" in refused.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "http://user:s3cret@broker/",
        "amqp://",
        "amqp:///vhost",
        "user:s3cret@broker",
        "amqp://user:s3cret@broker:port/",
        "amqp://user:s3cret@[broker/",
        "amqp://user:s3cret@broker/?no_verify_ssl=1",
    ],
)
async def test_a_url_that_cannot_be_used_is_refused_at_once(producer: Producer, url: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        RabbitmqBridge("orders", producer.options(url=url))
    assert refused.value.hint
    assert "s3cret" not in f"{refused.value} {refused.value.hint}"
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "settings",
    [{"prefetch": 0}, {"queue": ""}, {"declare": "maybe"}, {"identity": {"json": "id"}}, {"colour": "red"}],
)
async def test_settings_out_of_range_are_refused_without_showing_the_url(
    producer: Producer, settings: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError) as refused:
        producer.options(url="amqp://user:s3cret@broker/", **settings)
    assert "s3cret" not in str(refused.value)


async def test_without_the_client_the_extra_is_named(
    producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def without_aiormq(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "aiormq":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return imported(name, *arguments, **more)

    monkeypatch.delitem(sys.modules, "hammerwork.bridges.rabbitmq.link")
    monkeypatch.setattr(builtins, "__import__", without_aiormq)
    with pytest.raises(MissingExtra, match="`rabbitmq`"):
        RabbitmqBridge("orders", producer.options())


async def test_the_guarantee_names_its_condition(producer: Producer) -> None:
    promise = await RabbitmqBridge("orders", producer.options()).guarantee()
    assert promise.level == "exactly-once in effect"
    assert "message_id" in promise.because
    assert promise.warnings == ()


async def test_the_guarantee_warns_of_what_can_go_wrong(producer: Producer) -> None:
    settings = {"identity": "none", "prefetch": 10, "declare": "create", "queue_type": "quorum"}
    promise = await RabbitmqBridge("orders", producer.options(**settings)).guarantee()
    assert promise.level == "at-least-once"
    for word in ("duplicates", "prefetch", "dead-letter exchange"):
        assert any(word in warning for warning in promise.warnings)


async def test_the_guarantee_looks_at_the_real_queue(producer: Producer) -> None:
    with pytest.raises(Misconfigured, match="no queue"):
        await RabbitmqBridge("orders", producer.options(queue="test.nothing")).guarantee()
    absent = producer.options(queue="test.nothing", declare="create")
    assert (await RabbitmqBridge("orders", absent).guarantee()).level == "exactly-once in effect"
    with pytest.raises(aiormq.exceptions.ChannelNotFoundEntity):
        await producer.channel.queue_declare("test.nothing", passive=True)


@dataclass
class Authority:
    """A certificate authority of the test's own, and what it signed for the broker."""

    ca: Path
    chain: Path
    key: Path


def certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
) -> bytes:
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "ca.pem", tmp_path / "chain.pem", tmp_path / "key.pem")
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    made.ca.write_bytes(certificate("authority", ca_key, "authority", ca_key, ca=True))
    made.chain.write_bytes(certificate("broker.test", key, "authority", ca_key, ca=False))
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return made


@pytest.fixture
async def tls_port(rabbitmq_service: RabbitmqService, authority: Authority) -> AsyncIterator[int]:
    """A TLS listener before the broker, with a certificate for `broker.test`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.chain, authority.key)
    async with FaultProxy(*rabbitmq_service.address, tls=context) as proxy:
        yield proxy.port


async def test_tls_with_the_right_authority_and_name_is_trusted(
    producer: Producer, tls_port: int, authority: Authority
) -> None:
    tls = {"ca_file": authority.ca, "server_name": "broker.test"}
    options = producer.options(url=f"amqps://guest:guest@127.0.0.1:{tls_port}/", tls=tls)
    bridge = RabbitmqBridge("orders", options)
    await bridge.open()
    await producer.send(b"over TLS")
    assert (await pull_one(bridge)).body == b"over TLS"
    await bridge.close()


@pytest.mark.parametrize("names", [{"server_name"}, {"ca_file"}], ids=["no authority", "wrong name"])
async def test_tls_with_the_wrong_authority_or_name_is_refused(
    producer: Producer, tls_port: int, authority: Authority, names: set[str]
) -> None:
    tls = {"ca_file": authority.ca, "server_name": "broker.test"}
    options = producer.options(
        url=f"amqps://guest:guest@127.0.0.1:{tls_port}/", tls={n: v for n, v in tls.items() if n in names}
    )
    with pytest.raises(Misconfigured, match="CERTIFICATE_VERIFY_FAILED") as refused:
        await RabbitmqBridge("orders", options).open()
    assert "tls.ca_file" in refused.value.hint


async def test_tls_files_that_cannot_be_read_are_refused(producer: Producer, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.pem"
    options = producer.options(url="amqps://127.0.0.1:1/", tls={"ca_file": nothing})
    with pytest.raises(Misconfigured, match="TLS files"):
        await RabbitmqBridge("orders", options).open()


async def test_tls_settings_need_a_tls_url(producer: Producer) -> None:
    with pytest.raises(Misconfigured, match="amqp://"):
        RabbitmqBridge("orders", producer.options(tls={"server_name": "broker"}))
