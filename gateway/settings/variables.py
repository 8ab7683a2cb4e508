"""Which variable sets what: HAMMERWORK_SECTION__KEY, and the short ones of the quick start."""

from __future__ import annotations

import re
from collections.abc import Mapping

PREFIX = "HAMMERWORK_"
DELIMITER = "__"
CONFIG = "HAMMERWORK_CONFIG"

Place = tuple[str, ...]
"""The place of a setting: ("http", "port")."""

SHORT_FORMS: Mapping[str, Place] = {
    "HAMMERWORK_DATABASE_URL": ("database", "url"),
    "HAMMERWORK_DATABASE_URL_FILE": ("database", "url_file"),
    "HAMMERWORK_RABBITMQ_URL": ("bridges", "rabbitmq", "url"),
    "HAMMERWORK_RABBITMQ_URL_FILE": ("bridges", "rabbitmq", "url_file"),
    "HAMMERWORK_RABBITMQ_QUEUE": ("bridges", "rabbitmq", "queue"),
    "HAMMERWORK_RABBITMQ_TO_QUEUE": ("bridges", "rabbitmq", "to_queue"),
    "HAMMERWORK_SQS_QUEUE": ("bridges", "sqs", "queue"),
    "HAMMERWORK_SQS_REGION": ("bridges", "sqs", "region"),
    "HAMMERWORK_SQS_ENDPOINT_URL": ("bridges", "sqs", "endpoint_url"),
    "HAMMERWORK_SQS_TO_QUEUE": ("bridges", "sqs", "to_queue"),
    "HAMMERWORK_KAFKA_BOOTSTRAP": ("bridges", "kafka", "bootstrap"),
    "HAMMERWORK_KAFKA_TOPICS": ("bridges", "kafka", "topics"),
    "HAMMERWORK_KAFKA_TO_QUEUE": ("bridges", "kafka", "to_queue"),
    "HAMMERWORK_WEBHOOK_URL": ("sinks", "webhook", "url"),
    "HAMMERWORK_WEBHOOK_SECRET": ("sinks", "webhook", "secrets"),
    "HAMMERWORK_WEBHOOK_SECRET_FILE": ("sinks", "webhook", "secrets_file"),
    "HAMMERWORK_KAFKA_EVENTS_BOOTSTRAP": ("sinks", "kafka", "bootstrap"),
    "HAMMERWORK_KAFKA_EVENTS_TOPIC": ("sinks", "kafka", "topic"),
    "HAMMERWORK_KINESIS_STREAM": ("sinks", "kinesis", "stream"),
}
"""The quick start: these make bridges named `rabbitmq`, `kafka` and `sqs`, and sinks named `webhook`, `kafka`
and `kinesis`."""

NOT_SETTINGS = re.compile(r"HAMMERWORK_(CONFIG|FAILPOINTS|LIFELINE|TEST_\w*)")

# Kubernetes and old container links put these into every pod beside a service named "hammerwork…".
SERVICE_LINKS = re.compile(r"HAMMERWORK_(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP)\w*)")
SERVICE_PORT = re.compile(r"HAMMERWORK_(\w+_)?PORT")


def variable_for(path: Place) -> str:
    """The variable that sets the value at `path`, the short one where there is one."""
    for name, short in SHORT_FORMS.items():
        if short == path:
            return name
    return PREFIX + DELIMITER.join(path).upper()


def place_of(variable: str) -> Place:
    """The place of the value that a variable sets, in either case of letters."""
    name = variable.upper()
    return SHORT_FORMS.get(name) or tuple(name[len(PREFIX) :].lower().split(DELIMITER))


def is_setting(variable: str, value: str) -> bool:
    """Whether it is meant for us. Empty variables count as not set, because that is what `${VARIABLE:-}` in a
    compose file gives."""
    name = variable.upper()
    if not value or not name.startswith(PREFIX) or NOT_SETTINGS.fullmatch(name):
        return False
    if SERVICE_PORT.fullmatch(name) and value.startswith(("tcp://", "udp://")):
        return False
    return not SERVICE_LINKS.fullmatch(name)
