"""TensorBoard over the rows of tables; over every training where there is no table yet, or all are asked for.

With more runs than about forty, TensorBoard begins with all of them hidden; a comparison has as many trainings.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

EVERY = 20.0  # seconds between two looks at what runs there are
AT_A_GLANCE = ("rows", "trials")
"""What a run's events are looked at by, where it has that: rows of a table, the trials of `tune`."""


def show(runs: Path, port: int, every: bool) -> int:
    """Run TensorBoard until it is interrupted; its exit code. every: show all events beneath the folder of runs."""
    if every:
        return _tensorboard(runs, port).wait()
    with TemporaryDirectory(prefix="bas-board-") as view:
        link(runs, Path(view))
        board = _tensorboard(Path(view), port)
        try:
            while True:
                try:
                    return board.wait(EVERY)
                except subprocess.TimeoutExpired:
                    link(runs, Path(view))
        finally:
            board.terminate()
            board.wait()


def _tensorboard(folder: Path, port: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port), "--reload_interval=10"]
    )


def link(runs: Path, view: Path) -> None:
    """Make the view a folder of links: of each run to its rows or trials, or to all its events while it has neither."""
    wanted = {}
    for events in sorted(runs.absolute().glob("**/tb")):
        found = [part for name in AT_A_GLANCE for part in (events / name, events / "MARKED" / name) if part.is_dir()]
        name = "-".join(events.parent.relative_to(runs.absolute()).parts)
        wanted.update({f"{name}-{part.name}" if len(found) > 1 else name: part for part in found or [events]})
    for old in view.iterdir():
        if old.readlink() != wanted.get(old.name):
            old.unlink()
    for name, part in wanted.items():
        if not (view / name).is_symlink():
            (view / name).symlink_to(part)
