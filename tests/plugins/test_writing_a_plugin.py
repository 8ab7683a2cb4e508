"""docs/writing-a-plugin.md: its files are written down, installed and run as they stand."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hammerwork.core.message import Message
from hammerwork.core.postgres.database import Database
from hammerwork.core.queue import Queue
from hammerwork.gateway import catalog
from hammerwork.gateway.parts import build_parts, load_handlers
from hammerwork.gateway.settings import Settings, load

from ..core.running import running, until
from ..gateway.command import Hammerwork

PAGE = Path(__file__).parent.parent.parent / "docs" / "writing-a-plugin.md"
FENCE = re.compile(r"```(\w+)\n# ([\w.]+)\n(.*?)```", re.DOTALL)
TEST_PAGES = """
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio
from pages import PagesSink

from hammerwork.plugins.conformance import LogSinkContract, Received, SinkHarness


@dataclass(kw_only=True)
class Pages(SinkHarness):
    path: Path

    async def received(self) -> Sequence[Received]:
        pages = sorted(self.path.glob("*.page"))
        events = [json.loads(line) for page in pages for line in page.read_text().splitlines()]
        return [Received(event_id=event["id"], event=event) for event in events]


class TestPages(LogSinkContract):
    plugin = PagesSink
    kind = "pages:PagesSink"

    @pytest_asyncio.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[SinkHarness]:
        path = tmp_path / "pages"
        path.mkdir()
        yield Pages(path=path, options={"path": str(path)})
"""
NOISE = re.compile(r"```toml\n(\[bridges\.noise\].*?)```", re.DOTALL)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's files in a folder of its own, as though `pip install` had put them there."""
    folder = tmp_path / "site"
    folder.mkdir()
    for _, name, text in FENCE.findall(PAGE.read_text(encoding="utf-8")):
        (folder / name).write_text(text, encoding="utf-8")
    _install(folder)
    monkeypatch.syspath_prepend(folder)
    catalog._installed.cache_clear()
    yield folder
    catalog._installed.cache_clear()
    for name in ("gibberish", "folder", "lines", "pages", "shop"):
        sys.modules.pop(name, None)


def _install(folder: Path) -> None:
    """What an installer would make of the page's pyproject.toml."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    about = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups]
    (about / "entry_points.txt").write_text("\n".join(lines))


def settings(folder: Path, text: str) -> Settings:
    file = folder / "hammerwork.toml"
    file.write_text(text)
    return load(file, env={})


async def test_ten_lines_make_jobs(project: Path, database: Database, queue: Queue) -> None:
    match = NOISE.search(PAGE.read_text(encoding="utf-8"))
    assert match is not None
    parts = build_parts(settings(project, match[1]))
    async with running(parts.ingests["noise"].intake(database)):
        await until(lambda: _waiting(queue, "noise", 5))


async def test_the_folder_is_found_by_its_entry_point_and_read(
    project: Path, database: Database, queue: Queue
) -> None:
    inbox = project / "inbox"
    inbox.mkdir()
    for number in range(3):
        (inbox / f"{number}.json").write_text(json.dumps({"n": number}))
    parts = build_parts(settings(project, f'[bridges.inbox]\ntype = "folder"\npath = "{inbox}"'))
    async with running(parts.ingests["inbox"].intake(database)):
        await until(lambda: _waiting(queue, "inbox", 3))
        await until(lambda: _empty(inbox))


async def test_the_sink_writes_lines(project: Path) -> None:
    file = project / "events"
    parts = build_parts(settings(project, f'[sinks.log]\ntype = "lines"\npath = "{file}"'))
    sink = parts.outlets["log"].one_by_one
    assert sink is not None
    event = {"id": "1", "type": "t"}
    await sink.open()
    report = await sink.deliver(_attempt(event))
    await sink.close()
    assert type(report.outcome).__name__ == "Done"
    assert json.loads(file.read_text()) == event


async def test_transform_and_handlers_are_named_by_the_package(project: Path) -> None:
    loaded = settings(
        project,
        '[bridges.shop]\ntype = "folder"\npath = "/tmp"\ntransform = "shop-order"\nto_queue = "orders"\n'
        '[worker]\nhandlers = "shop"',
    )
    assert build_parts(loaded).ingests["shop"].name == "shop"
    handlers = load_handlers(loaded.worker)
    assert handlers is not None
    assert list(handlers) == ["orders"]
    to_job: Any = catalog.transforms.find("shop-order")
    order = {"kind": "order", "order": {"id": "7"}}
    assert to_job(Message(body=b""), order).correlation_id == "7"
    assert to_job(Message(body=b""), {"kind": "heartbeat"}) is None


async def test_the_package_is_listed_with_what_it_offers(project: Path, tmp_path: Path) -> None:
    command = Hammerwork(tmp_path)
    listed = await command("plugins", "list", more={"PYTHONPATH": str(project)})
    ours = [row for row in listed.rows if row[2] == "hammerwork-folder 1.0"]
    assert [row[:2] for row in ours] == [
        ["bridge", "folder"],
        ["sink", "lines"],
        ["sink", "pages"],
        ["transform", "shop-order"],
        ["handlers", "shop"],
    ]
    assert {row[4] for row in ours} == {"usable"}
    shown = await command("plugins", "show", "folder", more={"PYTHONPATH": str(project)})
    assert "HAMMERWORK_BRIDGES__NAME__POLL" in shown.out
    assert "Reads the files of one folder in the order of their names." in shown.out


async def test_the_folder_and_the_pages_pass_the_kit(project: Path, dsn: str) -> None:
    """As their author would run it: in a process of its own. Without the tests that kill gateways, which
    tests/contracts runs often enough."""
    (project / "test_pages.py").write_text(TEST_PAGES)
    (project / "conftest.py").write_text(
        f'import pytest\n\n\n@pytest.fixture\ndef dsn() -> str:\n    return "{dsn}"\n'
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not killed",
        "test_folder.py", "test_pages.py",
        cwd=project, env={**os.environ, "PYTHONPATH": str(project)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def _waiting(queue: Queue, name: str, count: int) -> bool:
    stats = await queue.stats()
    return sum(found.available for found in stats if found.queue == name) >= count


async def _empty(folder: Path) -> bool:
    return not os.listdir(folder)


def _attempt(event: dict[str, Any]) -> Any:
    from hammerwork.plugins import DeliveryAttempt

    return DeliveryAttempt(event_id=event["id"], cloud_event=event, attempt=1)
