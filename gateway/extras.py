"""Which packages of an extra are missing, by what the installed distributions say of themselves."""

from __future__ import annotations

import re
from importlib import metadata

# As packaging writes them: `aiokafka>=0.14; extra == "kafka"`.
_REQUIREMENT = re.compile(r"""(?P<name>[A-Za-z0-9._-]+)[^;]*;.*\bextra\s*==\s*["'](?P<extra>[^"']+)["']""")


def not_installed(distribution: str, extra: str) -> list[str]:
    """What `distribution[extra]` asks for and is not there; versions are pip's business."""
    found = map(_REQUIREMENT.match, metadata.requires(distribution) or ())
    wanted = [match["name"] for match in found if match is not None and match["extra"] == extra]
    return [name for name in wanted if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
