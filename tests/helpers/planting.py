"""Plant each fault of `mutants` in a copy of the repository, where one of its tests must fail.

`make mutants`, or `python tests/helpers/planting.py [WORD ...]` for those whose name has one of the words; `--sound`
runs their tests with nothing planted.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = ("runs", "build")
"""Of the repository's own folders, beside those that begin with a dot."""

PROCESSES = 2
SECONDS = 900
"""That the tests of a mutant may take; a test that hangs has noticed, but should say so."""


def outcome(mutant: Mutant) -> tuple[str, float]:
    """The first failing test of a copy with the fault in it, or why it SURVIVES, and the seconds it took."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder) / "bas"
        shutil.copytree(ROOT, copy, ignore=left_out)
        if mutant.file:
            path = copy / mutant.file
            source = path.read_text(encoding="utf-8")
            if source.count(mutant.old) != 1:
                return f"SURVIVES: its place in {mutant.file} is there {source.count(mutant.old)} times", 0.0
            path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *words(mutant.tests)]
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"SURVIVES: its tests took more than {SECONDS} s", time.monotonic() - begun
        failed = re.search(r"^(?:FAILED|ERROR) (\S+::.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
        if done.returncode == 1 and failed:
            return failed[1], time.monotonic() - begun
        last = (done.stdout + done.stderr).strip().splitlines()[-1]
        return f"SURVIVES: {last}", time.monotonic() - begun


def left_out(folder: str, names: list[str]) -> list[str]:
    """What a copy does without."""
    return [name for name in names if name.startswith((".", "__py")) or (Path(folder) == ROOT and name in LEFT_OUT)]


def words(tests: str) -> list[str]:
    """Paths, and what stands behind -k as one argument."""
    paths, _, chosen = tests.partition(" -k ")
    return [*paths.split(), *(["-k", chosen.strip("'")] if chosen else [])]


def main(arguments: list[str]) -> int:
    """Print a line a mutant; 1 when one survives."""
    if arguments == ["--sound"]:
        return sound()
    chosen = [m for m in MUTANTS if not arguments or any(word in m.name for word in arguments)]
    assert chosen, f"no mutant is named {' or '.join(arguments)}"
    with ThreadPoolExecutor(PROCESSES) as pool:
        survivors = 0
        for mutant, (result, seconds) in zip(chosen, pool.map(outcome, chosen), strict=True):
            survivors += result.startswith("SURVIVES")
            print(f"{mutant.name:50} {seconds:5.0f} s  {result}", flush=True)
    print(f"{len(chosen)} faults planted, {survivors} survive")
    return int(survivors > 0)


def sound() -> int:
    """Every test that a mutant names, with nothing planted; 1 when one fails."""
    every = [Mutant(tests, "", "", "", tests) for tests in dict.fromkeys(m.tests for m in MUTANTS)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        failed = 0
        for mutant, (result, seconds) in zip(every, pool.map(outcome, every), strict=True):
            passed = re.search(r"^SURVIVES: \d+ passed", result)
            failed += not passed
            print(f"{seconds:5.0f} s  {'pass' if passed else result}  {mutant.name}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
