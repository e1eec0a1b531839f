"""Every verb, killed at random moments and begun again: it ends as an undisturbed run, and leaves nothing over.

In a process of its own, which may fork: see `tests/helpers/killing_verbs.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import PATIENCE, ROOT

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("BAS_KILLS", "14"))
"""Over all verbs together, and at least one of each."""


def test_killed_verbs_end_as_undisturbed_ones(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests/helpers/killing_verbs.py"), str(tmp_path / "kills"), str(KILLS), "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE + 10 * KILLS)
    assert done.returncode == 0, done.stderr
    kills = dict(re.findall(r"^(\w+): .*?(\d+) kills", done.stdout, re.MULTILINE))
    assert len(kills) == 14
    assert sum(map(int, kills.values())) >= KILLS
