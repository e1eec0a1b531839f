"""TensorBoard over the rows of tables; over every training where there is no table yet, or all are asked for.

With more runs than about forty, TensorBoard begins with all of them hidden; a comparison has as many trainings.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

EVERY = 20.0  # seconds between two looks at what runs there are
AT_A_GLANCE = ("rows", "trials")
"""What a run's events are looked at by, where it has that: rows of a table, the trials of `tune`."""
PASSED_OVER = ("jobs", "spaces", "figures", "models")
"""Folders of a run that hold no other run."""


def show(runs: Path, port: int, every: bool) -> int:
    """Run TensorBoard until it ends or is interrupted; its exit code. every: show all events beneath the folder."""
    if every:
        os.execv(sys.executable, _command(runs, port))  # TensorBoard takes this process's place, and its signals
    with TemporaryDirectory(prefix="bas-board-") as view:
        link(runs, Path(view))
        interrupted = False

        def end(number: int, frame: object) -> None:
            nonlocal interrupted
            interrupted = interrupted or number == signal.SIGINT
            board.terminate()

        board = subprocess.Popen(_command(Path(view), port))
        try:
            # Not KeyboardInterrupt: raised within `wait`, it may leave a lock of Popen held, for which the next waits.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, end)
            while True:
                try:
                    code = board.wait(EVERY)
                    return 0 if interrupted else code if code >= 0 else 128 - code
                except subprocess.TimeoutExpired:
                    link(runs, Path(view))
        except KeyboardInterrupt:  # before the signals are taken
            return 0
        finally:
            board.terminate()
            board.wait()


def _command(folder: Path, port: int) -> list[str]:
    of = ["--logdir", str(folder), "--port", str(port), "--reload_interval=10"]
    return [sys.executable, "-m", "tensorboard.main", *of]


def link(runs: Path, view: Path) -> None:
    """Make the view a folder of links: of each run to its rows or trials, or to all its events while it has neither."""
    wanted: dict[str, Path] = {}
    for events in _events(runs):
        found = [part for name in AT_A_GLANCE for part in (events / name, events / "MARKED" / name) if part.is_dir()]
        parts = events.parent.relative_to(runs.absolute()).parts or (runs.absolute().name,)
        for part in found or [events]:
            name = "-".join(parts) + (f"-{part.name}" if len(found) > 1 else "")
            numbered = (name if number == 1 else f"{name}-{number}" for number in count(1))
            wanted[next(one for one in numbered if one not in wanted)] = part
    for old in view.iterdir():
        if old.readlink() != wanted.get(old.name):
            old.unlink()
    for name, part in wanted.items():
        with suppress(FileExistsError):
            (view / name).symlink_to(part)


def _events(runs: Path) -> Iterator[Path]:
    """The folders of events of all runs beneath a folder, linked ones too, or of the one run that it is."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(runs.absolute(), followlinks=True):
        folders.sort()
        if os.path.realpath(folder) in seen:  # a link back
            folders.clear()
            continue
        seen.add(os.path.realpath(folder))
        run = "study.json" in files
        if "tb" in folders and (run or Path(folder) != runs.absolute()):  # where it is a run of that name
            yield Path(folder, "tb")
            folders.remove("tb")
        if run:
            folders[:] = [name for name in folders if name not in PASSED_OVER]
