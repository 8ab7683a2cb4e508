"""compose.yaml and Dockerfile name only what exists: settings, services, files, health checks and users."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import pytest
import yaml
from aiohttp.test_utils import TestServer
from standardwebhooks import Webhook

from hammerwork.core.postgres import schema
from hammerwork.core.postgres.database import Database
from hammerwork.gateway import settings

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"
OURS = ("gateway", "worker", "receiver")
PLACEHOLDER = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")

Compose = dict[str, Any]


def interpolated(node: object, variables: Mapping[str, str]) -> Any:
    """The file as Compose reads it: `${NAME:-default}` replaced everywhere."""
    match node:
        case dict():
            return {key: interpolated(value, variables) for key, value in node.items()}
        case list():
            return [interpolated(value, variables) for value in node]
        case str():
            return PLACEHOLDER.sub(lambda m: variables.get(m[1]) or m[2], node)
        case _:
            return node


def compose_file(**variables: str) -> Compose:
    found: Compose = interpolated(yaml.safe_load((ROOT / "compose.yaml").read_text()), variables)
    return found


@pytest.fixture
def compose() -> Compose:
    return compose_file()


def host_of(url: str) -> tuple[str | None, int | None]:
    parts = urlsplit(url)
    return parts.hostname, parts.port


# --- compose.yaml --------------------------------------------------------------------------------


def test_the_gateway_understands_its_environment(compose: Compose) -> None:
    found = settings.load(env=compose["services"]["gateway"]["environment"])

    assert found.database.url is not None
    assert host_of(found.database.url.get_secret_value()) == ("postgres", 5432)
    assert host_of(found.bridges["rabbitmq"].options.model_dump()["url"].get_secret_value()) == (
        "rabbitmq",
        5672,
    )
    assert host_of(compose["services"]["gateway"]["environment"]["HAMMERWORK_WEBHOOK_URL"]) == (
        "receiver",
        8000,
    )
    assert found.sinks["webhook"].type == "webhook"
    assert found.http.token is not None


def test_the_line_for_kafka_makes_a_bridge_to_a_topic_that_is_made() -> None:
    (line,) = re.findall(r"# +Kafka too +(.+)", (ROOT / "compose.yaml").read_text())
    services = compose_file(**dict(word.split("=", 1) for word in line.split() if "=" in word))["services"]
    assert services["kafka"]["profiles"] == [re.findall(r"--profile (\w+)", line)[0]]
    options = settings.load(env=services["gateway"]["environment"]).bridges["kafka"].options.model_dump()
    advertised = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"PLAINTEXT://{options['bootstrap'][0]}" in advertised
    assert options["topics"] == (services["kafka"]["healthcheck"]["test"][-1],)
    assert "kafka" not in settings.load(env=compose_file()["services"]["gateway"]["environment"]).bridges


def test_the_line_for_sqs_makes_a_bridge_to_the_emulator() -> None:
    (line,) = re.findall(r"# +SQS too +(.+)", (ROOT / "compose.yaml").read_text())
    variables = dict(word.split("=", 1) for word in line.split() if "=" in word)
    services = compose_file(**variables)["services"]
    assert services["aws"]["profiles"] == [re.findall(r"--profile (\w+)", line)[0]]
    gateway = services["gateway"]["environment"]
    options = settings.load(env=gateway).bridges["sqs"].options.model_dump()
    assert host_of(options["endpoint_url"]) == ("aws", 5000)
    assert f"QueueName='{options['queue']}'" in services["aws"]["healthcheck"]["test"][-1]
    assert gateway["AWS_ACCESS_KEY_ID"] == services["aws"]["environment"]["AWS_ACCESS_KEY_ID"]
    assert "sqs" not in settings.load(env=compose_file()["services"]["gateway"]["environment"]).bridges


def test_a_password_of_ones_own_reaches_both_ends() -> None:
    services = compose_file(POSTGRES_PASSWORD="first", RABBITMQ_PASSWORD="second")["services"]

    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] == "first"
    assert services["rabbitmq"]["environment"]["RABBITMQ_DEFAULT_PASS"] == "second"
    gateway = services["gateway"]["environment"]
    assert urlsplit(gateway["HAMMERWORK_DATABASE_URL"]).password == "first"
    assert urlsplit(gateway["HAMMERWORK_RABBITMQ_URL"]).password == "second"
    assert services["worker"]["environment"]["HAMMERWORK_DATABASE_URL"] == gateway["HAMMERWORK_DATABASE_URL"]


def test_the_receiver_is_told_the_secret_that_the_gateway_signs_with() -> None:
    services = compose_file(WEBHOOK_SECRET="whsec_c2VjcmV0")["services"]
    assert services["receiver"]["environment"]["WEBHOOK_SECRET"] == "whsec_c2VjcmV0"
    assert services["gateway"]["environment"]["HAMMERWORK_WEBHOOK_SECRET"] == "whsec_c2VjcmV0"


def test_webhooks_may_reach_the_network_of_the_stack(compose: Compose) -> None:
    (network,) = compose["networks"]["default"]["ipam"]["config"]
    allowed = compose["services"]["gateway"]["environment"]["HAMMERWORK_SINKS__WEBHOOK__ALLOW_NETWORKS"]
    assert network["subnet"] == allowed


def test_the_worker_understands_its_environment_and_runs_the_queue_that_is_filled(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, gateway = compose["services"]["worker"], compose["services"]["gateway"]
    settings.load(env=worker["environment"])

    monkeypatch.syspath_prepend(EXAMPLES)
    _, _, named, *options = worker["command"]
    module, _, attribute = named.partition(":")
    handlers = getattr(import_module(module), attribute)
    queue = options[options.index("--queue") + 1]
    assert queue in handlers
    assert queue == gateway["environment"]["HAMMERWORK_RABBITMQ_TO_QUEUE"]


def test_every_service_has_a_health_check(compose: Compose) -> None:
    for name, service in compose["services"].items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["healthcheck"]["interval"], name


def test_every_dependency_exists_and_is_waited_for(compose: Compose) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, f"{name} depends on {other}"
            assert how == {"condition": "service_healthy"}, f"{name} depends on {other}"


def test_every_port_is_published_on_loopback_only(compose: Compose) -> None:
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), f"{name}: {port}"


def test_every_volume_and_every_mounted_file_exists(compose: Compose) -> None:
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = (ROOT / source).is_dir() if source.startswith(".") else source in compose["volumes"]
            assert known, f"{name}: {volume}"
        for argument in [*service.get("entrypoint", []), *service["healthcheck"]["test"]]:
            if argument.startswith("/app/"):
                assert (EXAMPLES / argument.removeprefix("/app/")).is_file(), f"{name}: {argument}"


def test_our_own_containers_can_do_little(compose: Compose) -> None:
    for name in OURS:
        service = compose["services"][name]
        assert service["build"] == "."
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert "user" not in service, "the image says who runs it"
        assert "privileged" not in service


def test_compose_itself_accepts_the_file() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("no docker compose")
    done = subprocess.run(
        [docker, "compose", "config", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --- Dockerfile ----------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, argument), continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def last(instruction: str) -> str:
    return [argument for word, argument in instructions() if word == instruction][-1]


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def test_the_image_does_not_run_as_root() -> None:
    user, _, group = last("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    words = [word for word, _ in instructions()]
    assert words.index("USER") > len(words) - 1 - words[::-1].index("FROM"), "the last stage must say it"


def test_the_image_starts_the_command_that_the_package_installs() -> None:
    (command,) = json.loads(last("ENTRYPOINT"))
    assert command in project()["project"]["scripts"]
    assert json.loads(last("CMD")) == ["run"]
    assert int(last("EXPOSE")) == settings.Settings().http.port


def test_the_image_installs_extras_that_exist() -> None:
    (named,) = re.findall(r'"hammerwork\[(.+?)\]"', (ROOT / "Dockerfile").read_text())
    assert set(named.split(",")) <= set(project()["project"]["optional-dependencies"])


def test_the_image_is_healthy_by_a_path_that_the_gateway_serves() -> None:
    assert "/livez" in last("HEALTHCHECK")
    assert "HAMMERWORK_HTTP__PORT" in last("HEALTHCHECK")
    settings.load(env={"HAMMERWORK_HTTP__PORT": "8081"})


def test_the_image_is_built_from_everything_that_the_package_has_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    admitted = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    folders = {name.split(".")[1] for name in project()["tool"]["setuptools"]["packages"] if "." in name}
    files = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "__init__.py", "py.typed"}
    assert admitted == folders | files
    assert all((ROOT / name).exists() for name in admitted)
    for word, argument in instructions():
        if word == "COPY" and not argument.startswith("--from"):
            source = argument.split()[0]
            assert source == "." or any(fnmatch(source, name) for name in admitted)


# --- docs/examples -------------------------------------------------------------------------------


async def test_the_receiver_takes_what_is_signed_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    secret = "whsec_c2VjcmV0IHNlY3JldCBzZWNyZXQ="
    body = json.dumps({"type": "job.completed", "data": {"job_id": "one"}})
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "event-1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("event-1", now, body),
    }
    server = TestServer(import_module("receiver").application(secret))
    async with server, aiohttp.ClientSession() as client:
        async with client.get(server.make_url("/health")) as answer:
            assert answer.status == 200
        async with client.post(server.make_url("/events"), data=body, headers=headers) as answer:
            assert answer.status == 204
        assert "event-1 job.completed" in capsys.readouterr().out
        async with client.post(server.make_url("/events"), data=body + " ", headers=headers) as answer:
            assert answer.status == 401
        assert capsys.readouterr().out == ""


async def test_a_worker_is_alive_while_its_heartbeat_is_fresh(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    alive = import_module("worker_alive").alive
    worker = uuid4()
    async with Database(dsn, size=2) as database:
        await schema.migrate(database)
        assert not await alive(dsn, "here")
        await database.fetch(
            "register_worker", worker, "here", os.getpid(), ["orders"], 1, timedelta(seconds=30)
        )
        assert await alive(dsn, "here")
        assert not await alive(dsn, "elsewhere")
        async with database.acquire() as connection:
            await connection.execute("update hammerwork.workers set heartbeat_at = now() - lease * 2")
        assert not await alive(dsn, "here")
