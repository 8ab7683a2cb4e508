"""A Redis server that writes every command to disk before it answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .broker import PASSWORD, USER, BrokerService, Recipe, find_broker

VARIABLE = "HAMMERWORK_TEST_REDIS_URL"
SETTINGS = f"""\
appendonly yes
appendfsync always
save ""
user default on nopass ~* &* +@all
user {USER} on >{PASSWORD} ~* &* +@all
"""


def _configure(home: Path, port: int) -> Sequence[str]:
    settings = home / "redis.conf"
    settings.write_text(f"bind 127.0.0.1\nport {port}\ndir {home}\n{SETTINGS}")
    return [str(RECIPE.program), str(settings)]


RECIPE = Recipe(
    name="Redis",
    variable=VARIABLE,
    scheme="redis",
    program=Path("/usr/bin/redis-server"),
    package="redis-server",
    owner="redis",
    configure=_configure,
    greeting=b"PING\r\n",
    answer=b"+",
    image="redis:7",
    script=f"echo '{SETTINGS}dir /data' >/data/redis.conf && exec redis-server /data/redis.conf",
    port=6379,
    probe=["redis-cli", "ping"],
)


def find_redis() -> BrokerService:
    """A running server. Raises ServiceMissing and StartFailed."""
    return find_broker(RECIPE)
