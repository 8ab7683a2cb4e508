"""A Mosquitto server that keeps sessions and their messages on disk.

It confirms a message before it saves it, and so loses messages of its own when it is killed: tests that may
lose nothing restart it in good order, when it saves all that it has.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from .broker import PASSWORD, USER, BrokerService, Recipe, find_broker

VARIABLE = "HAMMERWORK_TEST_MQTT_URL"
SETTINGS = """\
allow_anonymous true
persistence true
max_queued_messages 100000
"""


def connect_packet(client_id: str) -> bytes:
    """MQTT 5, a clean start, no properties: what a session of before held is thrown away."""
    said = bytes([0, 4, *b"MQTT", 5, 2, 0, 10, 0, 0, len(client_id), *client_id.encode()])
    return bytes([0x10, len(said)]) + said


def _configure(home: Path, port: int) -> Sequence[str]:
    settings, accounts = home / "mosquitto.conf", home / "accounts"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(accounts), USER, PASSWORD], check=True)
    settings.write_text(
        f"listener {port} 127.0.0.1\n{SETTINGS}password_file {accounts}\npersistence_location {home}/\n"
    )
    return [str(RECIPE.program), "-c", str(settings)]


RECIPE = Recipe(
    name="Mosquitto",
    variable=VARIABLE,
    scheme="mqtt",
    program=Path("/usr/sbin/mosquitto"),
    package="mosquitto",
    owner="mosquitto",
    configure=_configure,
    greeting=connect_packet("up"),
    answer=b"\x20",
    image="eclipse-mosquitto:2",
    script=f"""mosquitto_passwd -b -c /mosquitto/accounts {USER} {PASSWORD}
        echo 'listener 1883\n{SETTINGS}password_file /mosquitto/accounts
        persistence_location /mosquitto/data/' >/mosquitto/ours.conf
        exec mosquitto -c /mosquitto/ours.conf""",
    port=1883,
    probe=["mosquitto_pub", "-t", "up", "-m", "1"],
)


def find_mqtt() -> BrokerService:
    """A running server. Raises ServiceMissing and StartFailed."""
    return find_broker(RECIPE)
