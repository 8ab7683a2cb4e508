"""What is built and shipped is what lies in the tree, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from configparser import ConfigParser
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("core", "clients", "gateway", "bridges", "sinks", "plugins")
NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of this tree and the wheel that is built from that sdist."""
    folder = tmp_path_factory.mktemp("built")
    # A copy, because the build leaves its metadata in the tree that it reads.
    shutil.copytree(ROOT, folder / "tree", ignore=NOT_SOURCE)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "tree"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def files_of_the_tree(pattern: str) -> set[str]:
    found = {path for floor in FLOORS for path in (ROOT / floor).rglob(pattern)} | set(ROOT.glob(pattern))
    return {f"hammerwork/{path.relative_to(ROOT).as_posix()}" for path in found}


def dist_info(wheel: Path, names: list[str], file: str) -> str:
    (name,) = (name for name in names if name.endswith(f".dist-info/{file}"))
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name).decode()


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: dict[str, Any] = tomllib.load(file)["project"]
    return found


def test_the_wheel_has_every_module_of_the_tree_and_no_other(names: list[str]) -> None:
    assert {name for name in names if name.endswith(".py")} == files_of_the_tree("*.py")


def test_the_wheel_has_every_statement_and_migration(names: list[str]) -> None:
    statements = files_of_the_tree("*.sql")
    assert "hammerwork/core/sql/migrations/0001_first.sql" in statements
    assert {name for name in names if name.endswith(".sql")} == statements


def test_the_wheel_says_that_it_is_typed(names: list[str]) -> None:
    assert "hammerwork/py.typed" in names


def test_nothing_but_hammerwork_is_installed_as_a_top_level_name(names: list[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"hammerwork"}


def test_the_command_points_at_a_module_of_the_wheel(wheel: Path, names: list[str]) -> None:
    points = ConfigParser()
    points.read_string(dist_info(wheel, names, "entry_points.txt"))
    assert dict(points["console_scripts"]) == {"hammerwork": "hammerwork.gateway.cli:main"}
    module = points["console_scripts"]["hammerwork"].partition(":")[0].replace(".", "/")
    assert {f"{module}.py", f"{module}/__init__.py"} & set(names)


def test_the_metadata_names_licence_python_and_extras(wheel: Path, names: list[str]) -> None:
    metadata: Message = message_from_string(dist_info(wheel, names, "METADATA"))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra", [])) == set(project()["optional-dependencies"])
    assert "Apache License" in dist_info(wheel, names, "licenses/LICENSE")


def test_the_extra_all_is_all_that_a_process_may_need() -> None:
    extras = project()["optional-dependencies"]
    del extras["conformance"]  # for who writes plugins: it brings pytest
    (everything,) = extras.pop("all")
    assert set(everything.removeprefix("hammerwork[").removesuffix("]").split(",")) == set(extras)


def test_an_unpacked_wheel_finds_its_own_sql(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = (
        "import hammerwork; from hammerwork.core.postgres.database import statement;"
        "print(hammerwork.__file__); print(len(statement('claim')))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    file, length = done.stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert int(length) == len((ROOT / "core/sql/claim.sql").read_text())


def test_the_sdist_holds_what_the_wheel_was_built_from(built: Path, names: list[str]) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    sources = {name.removeprefix("hammerwork/") for name in names if name.startswith("hammerwork/")}
    assert sources | {"pyproject.toml", "README.md", "LICENSE"} <= inside
