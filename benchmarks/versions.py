"""`bas compare` of another commit against today's, on one feature store: its time and its table; writes versions.md.

The two take turns, seed after seed, each in a run of its own: a pair of times is that of one more seed in either, its
start and its table included. Then the rows of both are paired on the same test utterances, as by `bas runs between`.
The other commit is checked out beside the runs, and runs with today's libraries.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from datetime import date
from io import BytesIO
from pathlib import Path

import torch
from features import commit, machine

import bas
from bas.errors import UserError
from bas.report.format import points, verdict
from bas.util.files import write_text
from bas.util.markdown import markdown_table

PAGE = Path(__file__).with_suffix(".md")
ROOT = Path(__file__).resolve().parents[1]


def checked_out(revision: str, folder: Path) -> Path:
    """That commit's files, in a folder of their own."""
    archived = subprocess.run(["git", "-C", str(ROOT), "archive", revision], capture_output=True)
    if archived.returncode:
        raise UserError(f"--before {revision}: {archived.stderr.decode().strip()}")
    with tarfile.open(fileobj=BytesIO(archived.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def compare(tree: Path, folder: Path, name: str, features: Path, seeds: int, changes: Sequence[str]) -> float:
    """Seconds of `bas compare` by that tree's code, in `folder`, with this many seeds in all."""
    words = ["compare", f"--features={features}", f"--name={name}", f"--seeds={seeds}", *changes]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "bas", *words], env=environment, cwd=folder, check=True)
    return time.monotonic() - begun


def measure(features: Path, folder: Path, revision: str, seeds: int, changes: Sequence[str]) -> list[list[str]]:
    """A row for each seed: the seconds of either, and their ratio."""
    trees = {"before": checked_out(revision, folder / "tree"), "today": ROOT}
    rows, ratios = [], []
    for count in range(1, seeds + 1):
        before, today = (compare(tree, folder, name, features, count, changes) for name, tree in trees.items())
        ratios.append(before / today)
        rows.append([str(count - 1), f"{before:.0f}", f"{today:.0f}", f"{ratios[-1]:.2f}"])
    return [*rows, ["median", "", "", f"{statistics.median(ratios):.2f}"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True, help="a feature store")
    parser.add_argument("--before", required=True, help="the other commit")
    parser.add_argument("--folder", type=Path, required=True, help="of the runs; an empty one, or none")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--set", action="append", default=[], dest="changes", help="KEY=VALUE, as of `bas compare`")
    given = parser.parse_args()
    if given.folder.exists() and any(given.folder.iterdir()):
        sys.exit(f"benchmarks/versions.py: --folder {given.folder}: not empty")
    changes = [f"--set={change}" for change in given.changes]
    try:
        rows = measure(given.features.resolve(), given.folder.resolve(), given.before, given.seeds, changes)
        pairs = bas.between(*(given.folder / "runs" / name for name in ("before", "today")))
    except UserError as error:
        sys.exit(f"benchmarks/versions.py: {error}")
    told = [
        [one.row, points(one.first.mean), points(one.second.mean), verdict(one.second_against_first)] for one in pairs
    ]
    page = PAGE_TEXT.format(
        store=given.features.name,
        before=given.before,
        words=" ".join(["", *(f"--set {change}" for change in given.changes)]).rstrip(),
        seeds=given.seeds,
        date=date.today().isoformat(),
        commit=commit(),
        machine=machine(torch.device("cpu")),
        times="\n".join(markdown_table(("seed", "before, s", "today, s", "before, today = 1"), rows)),
        rows="\n".join(markdown_table(("row", "before", "today", "today against before"), told)),
    )
    write_text(PAGE, page)
    print(page, f"\nwritten: {PAGE}", sep="")


PAGE_TEXT = """# Two versions of `bas compare`

`python benchmarks/versions.py --features {store} --before {before}{words} --folder FOLDER --seeds {seeds}`, {date},
commit {commit}, on {machine}.

## Time

Wall clock of the whole command, in turns; one row is one more seed.

{times}

## Numbers

Paired on the same test utterances, second minus first, with its interval at 95 %.

{rows}
"""


if __name__ == "__main__":
    main()
