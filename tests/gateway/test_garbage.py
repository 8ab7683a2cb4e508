"""What the collector of cycles is told, in a process of its own, because that stays."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, weakref
from hammerwork.gateway.garbage import SELDOM, collect_seldom, keep_what_is_built

class Ring:
    def __init__(self): self.me = self

before, *_ = gc.get_threshold()
collect_seldom()
keep_what_is_built()
assert gc.get_freeze_count() > 1000
assert gc.get_threshold()[0] == SELDOM > before
later = weakref.ref(Ring())
kept = [[] for _ in range(2 * SELDOM)]
assert later() is None, "cycles that come later are still found"
"""


def test_what_is_there_is_frozen_and_later_cycles_are_found() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
