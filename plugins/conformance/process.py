"""The command `hammerwork` as a process, with no settings but those that a test gives it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import suppress

import pytest

COMMAND = "import sys; from hammerwork.gateway.cli import main; sys.exit(main())"


def clean_environment() -> dict[str, str]:
    """This process' variables, without settings of hammerwork's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HAMMERWORK_")}


async def command(*arguments: str, environment: Mapping[str, str], within: float) -> tuple[int, str]:
    """Run it to its end; the exit code (negative: the signal that ended it) and all that it printed. Fails
    the test when it takes longer than `within` seconds."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", COMMAND, *arguments, env=environment,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), within)
    except TimeoutError:
        pytest.fail(f"`hammerwork {' '.join(arguments)}` did not end within {within:g} s")
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")
