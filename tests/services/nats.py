"""A NATS server with JetStream, its streams in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .broker import PASSWORD, USER, BrokerService, Recipe, find_broker

VARIABLE = "HAMMERWORK_TEST_NATS_URL"
ACCOUNTS = (
    'authorization { users = [ { user: "open", password: "open" },'
    f' {{ user: "{USER}", password: "{PASSWORD}" }} ] }}\nno_auth_user: "open"\n'
)


def _configure(home: Path, port: int) -> Sequence[str]:
    settings = home / "nats.conf"
    settings.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{home}/data" }}\n{ACCOUNTS}')
    return [str(RECIPE.program), "--config", str(settings)]


RECIPE = Recipe(
    name="NATS",
    variable=VARIABLE,
    scheme="nats",
    program=Path("/usr/sbin/nats-server"),
    package="nats-server",
    owner="nats",
    configure=_configure,
    greeting=b"",
    answer=b"I",
    image="nats:2-alpine",
    script=f"""echo 'jetstream {{ store_dir: "/data" }}\n{ACCOUNTS}http: 8222' >/nats.conf
        exec nats-server --config /nats.conf""",
    port=4222,
    probe=["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8222/healthz"],
)


def find_nats() -> BrokerService:
    """A running server. Raises ServiceMissing and StartFailed."""
    return find_broker(RECIPE)
