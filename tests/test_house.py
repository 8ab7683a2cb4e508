"""The rules of the house that no linter holds."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
FLOORS = ("core", "clients", "gateway", "bridges", "sinks", "plugins")
OUTSIDE = re.compile(r"\.(?!ci$).*|build|dist|__pycache__|.*\.egg-info")
"""Folders that hold nothing of the project's own."""

LOCK_FILES = {
    "uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pylock.toml", "package-lock.json", "Cargo.lock",
    "go.sum", "yarn.lock", "pnpm-lock.yaml",
}  # fmt: skip
# In halves, so that this file passes its own test.
REGISTRIES = [
    f"{host}.{top}"
    for host, top in [
        ("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("crates", "io"), ("golang", "org"),
        ("repo.maven.apache", "org"), ("repo1.maven", "org"), ("deb.debian", "org"),
    ]
]  # fmt: skip
INDEX_OPTION = re.compile(r"--(?:extra-)?index-ur[l]|--trusted-hos[t]")
MACHINE_PATH = re.compile(r"""(?<![\w.$}])/(?:home|Users|root|work|mnt|opt/wheels)/[\w.-]""")
LONGEST = 450
NAME = re.compile(r"[a-z][a-z0-9_]*")


def files() -> list[Path]:
    found: list[Path] = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not OUTSIDE.fullmatch(name)]
        found += [Path(folder, name) for name in names]
    return sorted(found)


def texts() -> Iterator[tuple[Path, str]]:
    for path in files():
        try:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def modules(*folders: str) -> list[Path]:
    return [
        ROOT / "__init__.py",
        *(path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))),
    ]


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- what is nobody else's business --------------------------------------------------------------


def test_there_is_no_lock_file() -> None:
    assert [short(path) for path in files() if path.name in LOCK_FILES] == []


def test_no_file_names_a_package_registry() -> None:
    named = [f"{path}: {host}" for path, text in texts() for host in REGISTRIES if host in text]
    assert named == []
    assert [str(path) for path, text in texts() if INDEX_OPTION.search(text)] == []


def test_the_pins_hold_versions_and_hashes_and_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert len(pinned) > 50
    for line in pinned:
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; [^\\]+)? \\", line), line
    for line in lines:
        if line.startswith("    --"):
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
        assert "://" not in line


def test_every_requirement_of_the_project_is_pinned_to_a_version_that_fits() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        everything = tomllib.load(file)
    project = everything["project"]
    named = [*everything["build-system"]["requires"], *project["dependencies"]]
    for more in (*project["optional-dependencies"].values(), *everything["dependency-groups"].values()):
        named += more
    pins = dict(re.findall(r"^([a-z0-9-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    for requirement in map(Requirement, named):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name != project["name"]:
            assert name in pins, f"{name} is not pinned: make lock"
            assert requirement.specifier.contains(pins[name]), (
                f"{requirement}, pinned {pins[name]}: make lock"
            )


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    found = [f"{path}: {match[0]}" for path, text in texts() for match in MACHINE_PATH.finditer(text)]
    assert found == []


# --- how the code is laid out --------------------------------------------------------------------


@pytest.mark.parametrize("path", modules(*FLOORS), ids=short)
def test_every_room_says_in_its_first_sentence_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, "no docstring"
    first = " ".join(docstring.split("\n\n")[0].split())
    assert first.endswith((".", ":")), first
    assert not re.search(r"[.!?] [A-Z]", first), f"more than one sentence: {first}"


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {path.parent for path in modules(*FLOORS)}
    assert [short(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_no_file_is_longer_than_one_can_hold_in_the_head() -> None:
    lengths = {
        short(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in files()
        if path.suffix in {".py", ".sql", ".sh"} and "tests" not in path.parts
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def constants(node: ast.AST) -> set[str]:
    return {
        part.value
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and NAME.fullmatch(part.value)
    }


def statements_named(path: Path) -> Iterator[str]:
    """The names in `….fetch("name", …)` and `statement("name")`, also where a loop hands them over.

    SQL text that is given to a driver's `fetch` is no name: it has spaces.
    """
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    looped = {
        node.target.id: constants(node.iter)
        for node in nodes
        if isinstance(node, ast.For) and isinstance(node.target, ast.Name)
    }
    for node in nodes:
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in {"fetch", "statement"}:
            first = node.args[0]
            yield from looped.get(first.id, ()) if isinstance(first, ast.Name) else constants(first)


def test_every_statement_file_is_used_and_every_statement_used_is_a_file() -> None:
    kept = {path.stem for path in (ROOT / "core/sql").glob("*.sql")}
    used = {name for path in modules(*FLOORS) for name in statements_named(path)}
    assert {"never used": sorted(kept - used), "no such file": sorted(used - kept)} == {
        "never used": [],
        "no such file": [],
    }


def test_migrations_are_numbered_without_a_gap() -> None:
    found = sorted(path.name for path in (ROOT / "core/sql/migrations").iterdir())
    assert [int(name[:4]) for name in found] == list(range(1, len(found) + 1))
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", name) for name in found)


# --- what the documents say ----------------------------------------------------------------------


def documents() -> list[Path]:
    return [path for path in files() if path.suffix == ".md"]


def test_the_first_screen_of_the_readme_says_how_to_try_it_and_how_to_test_it() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:24])
    assert "make demo" in first_screen
    assert "make test" in first_screen


def test_every_make_target_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in documents():
        named = set(re.findall(r"(?:^|`)make ([a-z]+)", path.read_text(), re.MULTILINE))
        assert named <= targets, f"{short(path)}: {named - targets}"


def test_every_link_between_files_leads_somewhere() -> None:
    dead = [
        f"{short(path)} -> {link}"
        for path in documents()
        for link in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", path.read_text())
        if not (path.parent / link).exists()
    ]
    assert dead == []


@pytest.mark.parametrize(
    "plugin", ["redis", "nats", "mqtt", "celery.py", "sidekiq.py", "connection.py", "content.py"]
)
def test_a_first_party_plugin_stands_on_the_public_contract_alone(plugin: str) -> None:
    """What it imports of the house is `hammerwork.plugins` and its own files, as anybody's plugin could."""
    place = ROOT / "plugins" / plugin
    for file in [place] if place.is_file() else sorted(place.glob("*.py")):
        deep = len(file.relative_to(ROOT / "plugins").parts)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= deep, f"{file.name}:{node.lineno} reaches past hammerwork.plugins"
