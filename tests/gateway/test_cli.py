"""The command `hammerwork`, run as users run it: as a process, on a real Postgres."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from hammerwork.core.event import EventType
from hammerwork.core.identity import new_id
from hammerwork.core.job import Job, JobState
from hammerwork.core.postgres.database import Database
from hammerwork.core.queue import Queue

from .command import WITHIN, Hammerwork, assert_one_clear_line, ended, stopped

HELP_WITHIN = 0.3

COMMANDS = [
    "run", "check", "migrate", "verify", "version", "config show", "config env", "config schema",
    "bridge list", "bridge pause", "bridge resume", "bridge offsets", "bridge seek", "bridge tap",
    "bridge dry-run",
    "worker run", "worker list",
    "queue list", "queue status", "queue pause", "queue resume",
    "job list", "job show", "job enqueue", "job cancel", "job retry", "job result", "job wait",
    "dead list", "dead show", "dead replay", "dead discard",
    "sink list", "sink pause", "sink resume", "sink replay", "sink remove",
    "sink deliveries", "sink send-again", "plugins list", "plugins show",
]  # fmt: skip


# --- help and start-up ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
async def test_every_command_explains_itself_with_an_example(bare: Hammerwork, command: str) -> None:
    ran = await bare(*command.split(), "--help")
    assert (ran.code, ran.err) == (0, "")
    assert re.search(rf"^    hammerwork .*{command}", ran.out, re.MULTILINE)
    assert all(len(line) <= 110 for line in ran.out.splitlines())


async def test_groups_and_root_list_their_commands(bare: Hammerwork) -> None:
    listed = set()
    for group in ("", "worker", "queue", "job", "dead", "sink", "bridge", "plugins", "config"):
        ran = await bare(*group.split(), "--help")
        names = re.findall(r"^  ([a-z-]+)  +\S", ran.out.partition("Commands:")[2], re.MULTILINE)
        listed |= {f"{group} {name}".strip() for name in names}
    assert set(COMMANDS) == listed - {"worker", "queue", "job", "dead", "sink", "bridge", "plugins", "config"}


async def test_help_loads_nothing_heavy_and_is_quick(bare: Hammerwork) -> None:
    looking = (
        "import sys; from hammerwork.gateway.cli import main; main(['--help']);"
        "heavy = {'asyncio', 'asyncpg', 'aiohttp', 'pydantic', 'structlog', 'hammerwork.core.queue'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    python = await asyncio.create_subprocess_exec(sys.executable, "-c", looking, stdout=subprocess.PIPE)
    assert (await python.communicate())[0].splitlines()[-1] == b"[]"
    took = []
    for _ in range(5):
        before = time.monotonic()
        await bare("--help")
        took.append(time.monotonic() - before)
    assert min(took) <= HELP_WITHIN


# --- one clear line ------------------------------------------------------------------------------


async def test_no_database_says_how_to_name_one(bare: Hammerwork) -> None:
    ran = await bare("queue", "list")
    assert_one_clear_line(ran, "no database is configured", hint="HAMMERWORK_DATABASE_URL")
    assert ran.code == 1


async def test_unreachable_database_is_code_7(bare: Hammerwork) -> None:
    dsn = {"HAMMERWORK_DATABASE_URL": "postgresql://ana:secret@127.0.0.1:1/shop"}
    ran = await bare("job", "enqueue", "orders", more=dsn)
    assert_one_clear_line(ran, "127.0.0.1:1", hint="HAMMERWORK_DATABASE_URL")
    assert ran.code == 7
    assert "secret" not in ran.err


@pytest.mark.parametrize("dsn", ["shop", "mysql://localhost/shop", "postgresql://host:port/shop"])
async def test_dsn_that_is_none_is_one_clear_line(bare: Hammerwork, dsn: str) -> None:
    ran = await bare("queue", "list", more={"HAMMERWORK_DATABASE_URL": dsn})
    assert_one_clear_line(ran, "")
    assert ran.code in (1, 7)


async def test_database_without_schema_says_migrate(tmp_path: Path, dsn: str) -> None:
    ran = await Hammerwork(tmp_path, dsn)("job", "list")
    assert_one_clear_line(ran, "schema", hint="hammerwork migrate")
    assert "relation" not in ran.err


async def test_check_and_start_tell_one_story_of_a_fresh_database(tmp_path: Path, dsn: str) -> None:
    fresh = Hammerwork(tmp_path, dsn)
    ran = await fresh("check")
    assert "the gateway migrates it at start" in ran.out
    assert "hammerwork migrate" not in ran.out
    ran = await fresh("check", more={"HAMMERWORK_DATABASE__MIGRATE": "false"})
    assert (ran.code, "run `hammerwork migrate`" in ran.out) == (8, True)


async def test_an_open_door_is_refused_before_a_postgres_is_started(bare: Hammerwork) -> None:
    home = {"XDG_DATA_HOME": str(bare.folder / "data"), "HAMMERWORK_HTTP__HOST": "0.0.0.0"}
    for command in ("run", "check"):
        ran = await bare(command, more=home)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("error: http.host is 0.0.0.0, which others can reach, and no token guards")
        assert not (bare.folder / "data").exists()


async def test_wrong_database_name_and_user_are_one_clear_line(tmp_path: Path, dsn: str) -> None:
    other = Hammerwork(tmp_path, dsn.rpartition("/")[0] + "/no_such_database")
    assert_one_clear_line(await other("queue", "list"), "no_such_database")


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[databse]\nurl = 'x'", "databse"),
        ("[http]\nprot = 1", "did you mean `port`?"),
        ("[http]\nport = 'many'", "http.port"),
        ("[http\n", "is not TOML"),
        ("[bridges.shop]\ntype = 'rabitmq'", "did you mean 'rabbitmq'?"),
    ],
)
async def test_bad_settings_are_one_clear_line(bare: Hammerwork, toml: str, words: str) -> None:
    (bare.folder / "hammerwork.toml").write_text(toml)
    ran = await bare("config", "show", "--config", "hammerwork.toml")
    assert_one_clear_line(ran, words)
    assert "hammerwork.toml" in ran.err


async def test_every_talking_command_refuses_bad_settings(bare: Hammerwork) -> None:
    (bare.folder / "hammerwork.toml").write_text("[http]\nprot = 1")
    for command in ("queue list", "run", "check", "migrate", "worker run shop:handlers"):
        ran = await bare(*command.split(), more={"HAMMERWORK_CONFIG": "hammerwork.toml"})
        assert_one_clear_line(ran, "did you mean `port`?")


async def test_missing_config_file_is_one_clear_line(bare: Hammerwork) -> None:
    assert_one_clear_line(
        await bare("queue", "list", "--config", "nowhere.toml"), "nowhere.toml does not exist"
    )


async def test_wrong_broker_url_is_one_clear_line(hammerwork: Hammerwork) -> None:
    more = {"HAMMERWORK_RABBITMQ_URL": "http://localhost", "HAMMERWORK_RABBITMQ_QUEUE": "orders"}
    for command in ("check", "run"):
        assert_one_clear_line(await hammerwork(command, more=more), "url must be amqp:// or amqps://")


async def test_broker_that_does_not_answer_is_a_finding(hammerwork: Hammerwork) -> None:
    more = {
        "HAMMERWORK_RABBITMQ_URL": "amqp://guest:secret@127.0.0.1:1/",
        "HAMMERWORK_RABBITMQ_QUEUE": "orders",
    }
    ran = await hammerwork("check", more=more)
    assert ran.code == 8
    assert "bridge rabbitmq" in ran.out
    assert "secret" not in ran.out + ran.err
    assert "Traceback" not in ran.err
    found = json.loads((await hammerwork("check", "--json", more=more)).out)
    assert found["ok"] is False


async def test_missing_extra_names_what_to_install(hammerwork: Hammerwork) -> None:
    hidden = hammerwork.folder / "hidden"
    hidden.mkdir()
    for name in ("aio_pika", "aiormq"):
        (hidden / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name}', name='{name}')")
    more = {
        "PYTHONPATH": str(hidden),
        "HAMMERWORK_RABBITMQ_URL": "amqp://localhost",
        "HAMMERWORK_RABBITMQ_QUEUE": "orders",
    }
    ran = await hammerwork("check", more=more)
    assert_one_clear_line(ran, "extra `rabbitmq`")
    assert "hammerwork[rabbitmq]" in ran.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["queue", "lst"], "did you mean 'list'"),
        (["job", "list", "--stat", "dead"], "--stat"),
        (["job", "list", "--state", "finished"], "--state is one of"),
        (["job", "show", "42"], "'42' is not an id"),
        (["job", "show"], "missing argument"),
        (["job", "enqueue", "orders", "{'a': 1}"], "the payload is refused"),
        (["job", "enqueue", "orders", "@nowhere.json"], "nowhere.json cannot be read"),
        (["job", "enqueue", "No Good"], "queue"),
        (["job", "enqueue", "orders", "--priority", "urgent"], "priority"),
        (["job", "enqueue", "orders", "--delay", "soon"], "delay: must be a duration"),
        (["job", "enqueue", "orders", "--run-at", "2026-11-23T18:00:00"], "time zone"),
        (["worker", "run", "shop:handlers", "--lease", "1ms"], "--lease"),
        (["sink", "replay", "webhook", "--since", "yesterday"], "'yesterday' is neither"),
    ],
)
async def test_wrong_command_line_is_code_2(bare: Hammerwork, arguments: Sequence[str], words: str) -> None:
    ran = await bare(*arguments)
    assert ran.code == 2
    assert words.lower() in ran.err.lower()
    assert_one_clear_line(ran, "")


async def test_secrets_are_not_taken_as_arguments(bare: Hammerwork) -> None:
    ran = await bare("queue", "list", "--database-url", "postgresql://ana:secret@db/shop")
    assert_one_clear_line(ran, "everybody on this machine can read", hint="HAMMERWORK_DATABASE_URL")
    assert "secret" not in ran.err


async def test_debug_shows_where_an_error_came_from(bare: Hammerwork) -> None:
    for arguments in (["--debug", "queue", "list"], ["queue", "list", "--debug"]):
        ran = await bare(*arguments)
        assert ran.code == 1
        assert "Traceback" in ran.err


# --- schema --------------------------------------------------------------------------------------


async def test_migrate_applies_once_and_verify_is_then_content(tmp_path: Path, dsn: str) -> None:
    hammerwork = Hammerwork(tmp_path, dsn)
    before = await hammerwork("verify")
    assert before.code == 8
    assert "hammerwork migrate" in before.out
    first, second = await hammerwork("migrate"), await hammerwork("migrate")
    assert first.rows[0][0] == "0001"
    assert (second.code, second.out) == (0, "")
    after = await hammerwork("verify", "--json")
    assert (after.code, json.loads(after.out)) == (0, {"ok": True, "faults": []})


# --- jobs and queues -----------------------------------------------------------------------------


async def test_job_goes_round_by_its_printed_id(hammerwork: Hammerwork, queue: Queue) -> None:
    made = await hammerwork(
        "job",
        "enqueue",
        "orders",
        '{"order": 42}',
        "--priority",
        "high",
        "--delay",
        "1h",
        "--correlation-id",
        "c-1",
    )
    assert made.code == 0
    job = await queue.get(UUID(made.out.strip()))
    assert (job.payload, job.priority.name, job.correlation_id) == ({"order": 42}, "HIGH", "c-1")
    assert job.state is JobState.SCHEDULED
    shown = json.loads((await hammerwork("job", "show", job.id, "--json")).out)
    assert (shown["id"], shown["payload"], shown["attempts"]) == (str(job.id), {"order": 42}, [])
    [row] = (await hammerwork("job", "list", "--state", "scheduled")).rows
    assert row[:4] == [str(job.id), "orders", "scheduled", "high"]
    assert (await hammerwork("job", "retry", job.id)).out == f"{job.id}\twill run again\n"
    assert (await hammerwork("job", "cancel", job.id, "--reason", "no")).out == f"{job.id}\tcancelled\n"
    again = await hammerwork("job", "cancel", job.id)
    assert_one_clear_line(again, "it is cancelled")
    assert again.code == 5


async def test_payload_comes_from_standard_input_or_a_file(hammerwork: Hammerwork, queue: Queue) -> None:
    (hammerwork.folder / "order.json").write_text('{"from": "file"}')
    by_file = await hammerwork("job", "enqueue", "orders", "@order.json")
    by_input = await hammerwork("job", "enqueue", "orders", "-", given='{"from": "input"}')
    without = await hammerwork("job", "enqueue", "orders")
    payloads = [(await queue.get(UUID(ran.out.strip()))).payload for ran in (by_file, by_input, without)]
    assert payloads == [{"from": "file"}, {"from": "input"}, None]


async def test_same_id_is_enqueued_once(hammerwork: Hammerwork, queue: Queue) -> None:
    job_id = new_id()
    first, second = [await hammerwork("job", "enqueue", "orders", "--id", job_id) for _ in range(2)]
    assert first.out == second.out == f"{job_id}\n"
    assert "existed already" in second.err
    assert len(await queue.jobs()) == 1


async def test_unknown_job_is_code_3(hammerwork: Hammerwork) -> None:
    for act in ("show", "cancel", "retry", "result", "wait"):
        ran = await hammerwork("job", act, new_id())
        assert_one_clear_line(ran, "no job")
        assert ran.code == 3


async def test_many_are_not_cancelled_without_a_yes(hammerwork: Hammerwork, queue: Queue) -> None:
    ids = [await queue.enqueue(Job("orders")) for _ in range(2)]
    refused = await hammerwork("job", "cancel", *ids)
    assert (refused.code, refused.out) == (2, "")
    assert "--yes" in refused.err
    code, screen = await asyncio.to_thread(hammerwork.on_a_terminal, "job", "cancel", *ids, typed="n\n")
    assert code == 130
    assert "cancel 2 jobs?" in screen
    assert {job.state for job in await queue.jobs()} == {JobState.AVAILABLE}
    missing = new_id()
    done = await hammerwork("job", "cancel", "--yes", ids[0], missing, ids[1])
    assert done.code == 3
    assert [row[0] for row in done.rows] == [str(job_id) for job_id in ids]
    assert str(missing) in done.err


async def test_result_and_wait_tell_how_a_job_ended(hammerwork: Hammerwork, queue: Queue) -> None:
    waiting = await queue.enqueue(Job("nobody"))
    early = await hammerwork("job", "result", waiting, "--timeout", "50ms")
    assert_one_clear_line(early, "not finished", hint="--timeout")
    await queue.cancel(waiting, "not wanted")
    ended = await hammerwork("job", "wait", waiting)
    assert (ended.code, ended.out) == (1, "cancelled\n")
    assert "not wanted" in ended.err


async def test_queue_is_paused_and_resumed(hammerwork: Hammerwork, queue: Queue) -> None:
    await queue.enqueue(Job("orders"))
    paused = await hammerwork("queue", "pause", "orders", "--reason", "deploy 41")
    assert paused.err == "queue orders is paused\n"
    [row] = (await hammerwork("queue", "list")).rows
    assert (row[0], row[1], row[2], row[-1]) == ("orders", "paused", "1", "deploy 41")
    shown = json.loads((await hammerwork("queue", "status", "orders", "--json")).out)
    assert shown["pause_reason"] == "deploy 41"
    assert "is resumed" in (await hammerwork("queue", "resume", "orders")).err
    missing = await hammerwork("queue", "status", "oders")
    assert_one_clear_line(missing, "did you mean 'orders'?")
    assert missing.code == 3


async def test_pausing_a_queue_that_nothing_knows_says_so(hammerwork: Hammerwork, queue: Queue) -> None:
    await queue.enqueue(Job("orders"))
    ran = await hammerwork("queue", "pause", "oders")
    assert ran.code == 0
    said, hint = ran.err.splitlines()
    assert said == "queue oders is paused"
    assert "no live jobs, and no worker takes it (did you mean 'orders'?)" in hint


async def test_interrupt_is_code_130(hammerwork: Hammerwork, queue: Queue) -> None:
    job_id = await queue.enqueue(Job("nobody"))
    process = await hammerwork.started("job", "wait", job_id)
    async with Database(hammerwork.environment["HAMMERWORK_DATABASE_URL"]) as database:
        await connected(database, "hammerwork-cli")
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), WITHIN)
    assert (process.returncode, err) == (130, b"")


async def connected(database: Database, application: str) -> None:
    """Wait until somebody of that name is connected to this database and has asked something."""
    asked = (
        "select count(*), pg_sleep(0.02) from pg_stat_activity"
        " where application_name = $1 and query like '%hammerwork.%'"
    )
    async with database.acquire() as connection, asyncio.timeout(WITHIN):
        while not await connection.fetchval(asked, application):
            pass


# --- output --------------------------------------------------------------------------------------


async def test_table_for_people_lines_for_pipes_json_for_programs(
    hammerwork: Hammerwork, queue: Queue
) -> None:
    ids = [await queue.enqueue(Job("orders", correlation_id="c" * 300)) for _ in range(2)]
    code, screen = await asyncio.to_thread(hammerwork.on_a_terminal, "job", "list", columns=60)
    heading, *lines = screen.splitlines()
    assert code == 0
    assert heading.split()[:3] == ["ID", "QUEUE", "STATE"]
    assert heading.index("QUEUE") == lines[0].index("orders")
    assert all(len(line) <= 60 for line in lines)
    piped = await hammerwork("job", "list")
    assert {row[0] for row in piped.rows} == set(map(str, ids))
    assert "c" * 300 in piped.out
    listed = json.loads((await hammerwork("job", "list", "--json")).out)
    assert {job["id"] for job in listed} == set(map(str, ids))


async def test_empty_list_is_no_line_and_an_empty_array(hammerwork: Hammerwork) -> None:
    piped = await hammerwork("job", "list")
    assert (piped.out, piped.err) == ("", "none\n")
    listed = await hammerwork("job", "list", "--json")
    assert (json.loads(listed.out), listed.err) == ([], "")


async def test_control_characters_never_reach_the_terminal(hammerwork: Hammerwork, queue: Queue) -> None:
    nasty = "\x1b[2J\x07\t\n\x9b31m\u202eevil"
    job_id = await queue.enqueue(Job("orders", {"text": nasty}, correlation_id=nasty))
    await queue.pause("orders", nasty)
    for arguments in (["job", "list"], ["job", "list", "--json"], ["job", "show", job_id], ["queue", "list"]):
        _, screen = await asyncio.to_thread(hammerwork.on_a_terminal, *arguments, columns=500)
        for shown in (screen, (await hammerwork(*arguments)).out):
            assert "evil" in shown
            assert not set(nasty) & set(shown) - set("[2J31mevil\t\n")
    assert json.loads((await hammerwork("job", "show", job_id, "--json")).out)["payload"]["text"] == nasty
    [row] = (await hammerwork("job", "list")).rows
    assert row[7] == "\\x1b[2J\\x07\\t\\n\\x9b31m\\u202eevil"
    missing = await hammerwork("queue", "status", "\x1b[2J")
    assert "\x1b" not in missing.err


async def test_closed_pipe_is_no_error(hammerwork: Hammerwork, queue: Queue) -> None:
    await queue.enqueue_many([Job("orders", correlation_id="c" * 500) for _ in range(300)])
    process = await hammerwork.started("job", "list", "--limit", "300")
    assert process.stdout is not None
    await process.stdout.readline()
    process.stdout._transport.close()  # type: ignore[attr-defined]
    assert process.stderr is not None
    assert await asyncio.wait_for(process.stderr.read(), WITHIN) == b""
    assert await process.wait() == 0


# --- dead letters, sinks, bridges, settings ------------------------------------------------------


@pytest.fixture
async def letters(database: Database) -> list[UUID]:
    """Two dead letters of the bridge `shop`, the older one first: one readable by now, one never."""
    ids = []
    async with database.transaction() as connection:
        for body in (b'{"order": 7}', b"\xff{"):
            ids.append(new_id())
            await connection.execute(
                "insert into hammerwork.dead_letters"
                " (id, bridge, reason, detail, body, body_size, body_sha256)"
                " values ($1, 'shop', 'not_json', 'at character 0', $2, $3, sha256($2))",
                ids[-1],
                body,
                len(body),
            )
    return ids


SHOP = {"HAMMERWORK_BRIDGES__SHOP__TYPE": "http", "HAMMERWORK_BRIDGES__SHOP__TO_QUEUE": "orders"}


async def test_dead_letters_are_listed_shown_and_replayed(
    hammerwork: Hammerwork, queue: Queue, letters: list[UUID]
) -> None:
    readable, broken = letters
    listed = await hammerwork("dead", "list", "--bridge", "shop", "--reason", "not_json")
    assert [row[0] for row in listed.rows] == [str(broken), str(readable)]
    shown = json.loads((await hammerwork("dead", "show", readable, "--json")).out)
    assert (shown["reason"], shown["body"]) == ("not_json", '{"order": 7}')
    raw = await hammerwork.started("dead", "show", broken, "--body")
    assert (await raw.communicate())[0] == b"\xff{"
    strange = await hammerwork("dead", "replay", readable)
    assert_one_clear_line(strange, "not configured here")
    assert strange.code == 5
    replayed = await hammerwork("dead", "replay", readable, broken, more=SHOP)
    assert replayed.code == 1
    assert str(broken) in replayed.err
    [[letter_id, job_id]] = replayed.rows
    assert letter_id == str(readable)
    job = await queue.get(UUID(job_id))
    assert (job.queue, job.payload) == ("orders", {"order": 7})


async def test_dead_letters_are_discarded_after_a_yes(hammerwork: Hammerwork, letters: list[UUID]) -> None:
    assert (await hammerwork("dead", "discard", *letters)).code == 2
    assert (await hammerwork("dead", "discard", "--yes", *letters)).code == 0
    assert (await hammerwork("dead", "list")).out == ""
    assert {row[6] for row in (await hammerwork("dead", "list", "--all")).rows} == {"discarded"}
    again = await hammerwork("dead", "discard", letters[0])
    assert_one_clear_line(again, "closed already")
    assert again.code == 5


async def test_sinks_are_paused_resumed_and_looked_at(hammerwork: Hammerwork, database: Database) -> None:
    await database.fetch("register_sink", "webhook", "webhook", [EventType.COMPLETED])
    assert (await hammerwork("sink", "pause", "webhook", "--reason", "gone")).code == 0
    [row] = (await hammerwork("sink", "list")).rows
    assert (row[0], row[2], row[-1]) == ("webhook", "paused", "gone")
    assert (await hammerwork("sink", "resume", "webhook")).code == 0
    assert json.loads((await hammerwork("sink", "list", "--json")).out)[0]["state"] == "active"
    assert (await hammerwork("sink", "deliveries", "webhook")).code == 0
    for arguments in (["pause", "nobody"], ["deliveries", "nobody"], ["replay", "nobody", "--since", "2h"]):
        assert (await hammerwork("sink", *arguments)).code == 3
    assert (await hammerwork("sink", "send-again", new_id())).code == 3


async def test_several_deliveries_are_sent_again_and_one_that_cannot_be_stops_no_other(
    hammerwork: Hammerwork, queue: Queue
) -> None:
    later = Job("sink.webhook", run_at=datetime.now(UTC) + timedelta(days=1))
    await queue.enqueue(later)
    ran = await hammerwork("sink", "send-again", new_id(), later.id)
    assert (ran.code, ran.rows) == (3, [[str(later.id), "will be sent again"]])
    assert (await queue.get(later.id)).state is JobState.AVAILABLE


async def test_settings_need_no_database(bare: Hammerwork) -> None:
    secret = {"HAMMERWORK_HTTP__TOKEN": "hush-hush"}
    shown = await bare("config", "show", "--json", more=SHOP | secret)
    by_name = {setting["name"]: setting for setting in json.loads(shown.out)}
    assert by_name["bridges.shop.to_queue"]["source"] == "HAMMERWORK_BRIDGES__SHOP__TO_QUEUE"
    assert by_name["http.port"]["source"] == "default"
    only_set = await bare("config", "env", "--set", more=SHOP | secret)
    assert "HAMMERWORK_BRIDGES__SHOP__TO_QUEUE=orders" in only_set.out.splitlines()
    assert "#HAMMERWORK_HTTP__TOKEN=***" in only_set.out.splitlines()
    assert "hush-hush" not in shown.out + only_set.out
    everything = await bare("config", "env", more=SHOP | secret)
    assert "#HAMMERWORK_HTTP__PORT=8080" in everything.out.splitlines()
    schema = json.loads((await bare("config", "schema", more=SHOP | secret)).out)
    assert schema["$defs"]["bridges.http"]["properties"]["type"] == {"const": "http"}


# --- workers -------------------------------------------------------------------------------------

MODULE = """
from hammerwork.core.execute.handlers import Handlers

handlers = Handlers()
mapping = {"orders": lambda job: {"taken": job.payload}}
number = 42

@handlers.queue("orders")
async def take(job):
    return {"taken": job.payload}

@handlers.queue("slow")
async def be_slow(job):
    import asyncio
    open("started", "w").close()
    await asyncio.sleep(60)
"""

OWN_WORKER = """
import os
from hammerwork.core.queue import Queue
from hammerwork.core.execute.worker import Worker, WorkerPool

queue = Queue(os.environ["HAMMERWORK_DATABASE_URL"])
worker = Worker(queue, {"orders": lambda job: {"taken": job.payload}})
pool = WorkerPool(worker)
"""


@pytest.mark.parametrize("app", ["shop:handlers", "shop:mapping", "own:worker", "own:pool"])
async def test_worker_runs_whatever_holds_handlers_until_sigterm(
    hammerwork: Hammerwork, queue: Queue, app: str
) -> None:
    (hammerwork.folder / "shop.py").write_text(MODULE)
    (hammerwork.folder / "own.py").write_text(OWN_WORKER)
    job_id = await queue.enqueue(Job("orders", 42))
    process = await hammerwork.started("worker", "run", app)
    with ended(process):
        assert await queue.result(job_id, timeout=timedelta(seconds=WITHIN)) == {"taken": 42}
        [row] = (await hammerwork("worker", "list")).rows
        assert "orders" in row[-1].split(",")
        err = await stopped(process)
    assert "worker started" in err
    assert "worker stopped" in err
    assert (await hammerwork("worker", "list")).rows == []


async def test_worker_takes_only_the_queues_and_slots_that_are_named(
    hammerwork: Hammerwork, queue: Queue
) -> None:
    (hammerwork.folder / "shop.py").write_text(MODULE)
    process = await hammerwork.started(
        "worker", "run", "shop:handlers", "--queue", "orders", "--concurrency", "3", "--lease", "10s"
    )
    with ended(process):
        job_id = await queue.enqueue(Job("orders"))
        await queue.result(job_id, timeout=timedelta(seconds=WITHIN))
        [worker] = json.loads((await hammerwork("worker", "list", "--json")).out)
        assert (worker["queues"], worker["concurrency"], worker["lease"]) == (["orders"], 3, 10.0)
        await stopped(process)


async def test_second_signal_hurries_a_worker(hammerwork: Hammerwork, queue: Queue) -> None:
    (hammerwork.folder / "shop.py").write_text(MODULE)
    job_id = await queue.enqueue(Job("slow"))
    process = await hammerwork.started("worker", "run", "shop:handlers", "--drain", "1h")
    with ended(process):
        async with asyncio.timeout(WITHIN):
            while not (hammerwork.folder / "started").exists():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        while b"worker stopping" not in await asyncio.wait_for(process.stderr.readline(), WITHIN):
            pass
        await stopped(process)
    job = await queue.get(job_id)
    assert (job.state, job.attempt) == (JobState.AVAILABLE, 0)


@pytest.mark.parametrize(
    ("app", "words", "hint"),
    [
        ("shop", "names no application", "MODULE:APP"),
        ("nowhere:app", "there is no module 'nowhere'", "PYTHONPATH"),
        ("shop.sub:app", "there is no module 'shop.sub'", ""),
        ("shop:handler", "has no 'handler'", "shop:handlers"),
        ("shop:number", "is a int", "Handlers"),
        ("broken:app", "No module named 'not_installed_here'", "broken.py line 3: import not_installed_here"),
        ("crashing:app", "ZeroDivisionError", "crashing.py line 2: return 1 / 0"),
        ("typo:app", "SyntaxError", "typo.py line 1"),
    ],
)
async def test_application_that_cannot_be_had_is_one_clear_line(
    hammerwork: Hammerwork, app: str, words: str, hint: str
) -> None:
    for name, text in {
        "shop.py": MODULE,
        "broken.py": "\n\nimport not_installed_here\n",
        "crashing.py": "def half():\n    return 1 / 0\n\napp = half()\n",
        "typo.py": "def (:\n",
    }.items():
        (hammerwork.folder / name).write_text(text)
    assert_one_clear_line(await hammerwork("worker", "run", app), words, hint=hint)


async def test_own_worker_takes_no_limits_from_the_command_line(hammerwork: Hammerwork) -> None:
    (hammerwork.folder / "own.py").write_text(OWN_WORKER)
    ran = await hammerwork("worker", "run", "own:worker", "--concurrency", "3")
    assert ran.code == 2
    assert_one_clear_line(ran, "has its own --concurrency")


async def test_worker_refuses_a_database_without_schema(tmp_path: Path, dsn: str) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    ran = await Hammerwork(tmp_path, dsn)("worker", "run", "shop:handlers")
    assert ran.code == 1
    assert "hammerwork migrate" in ran.err
    assert "Traceback" not in ran.err


async def test_worker_gives_up_on_a_database_that_never_answers(bare: Hammerwork) -> None:
    (bare.folder / "shop.py").write_text(MODULE)
    more = {
        "HAMMERWORK_DATABASE_URL": "postgresql://ana@127.0.0.1:1/shop",
        "HAMMERWORK_DATABASE__PATIENCE": "300ms",
    }
    ran = await bare("worker", "run", "shop:handlers", more=more)
    assert ran.code == 7
    assert ran.err.splitlines()[-2].startswith("error: ")
    assert "waiting for postgres" in ran.err
    assert "Traceback" not in ran.err


# --- the gateway ---------------------------------------------------------------------------------


async def test_run_stops_in_good_order(hammerwork: Hammerwork) -> None:
    process = await hammerwork.started("run", more={"HAMMERWORK_HTTP__PORT": "0"})
    with ended(process):
        assert process.stderr is not None
        while b"gateway started" not in await asyncio.wait_for(process.stderr.readline(), WITHIN):
            pass
        assert "gateway stopped" in await stopped(process)


async def test_run_refuses_to_be_open_to_the_network(hammerwork: Hammerwork) -> None:
    ran = await hammerwork("run", more={"HAMMERWORK_HTTP__HOST": "0.0.0.0"})
    assert ran.code == 1
    assert "no token guards the API" in ran.err
    assert "Traceback" not in ran.err
