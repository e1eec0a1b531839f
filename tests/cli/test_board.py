"""TensorBoard's view of the runs: rows and trials; where a run has neither yet, all of its trainings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from places import PATIENCE

from bas.cli import board
from bas.cli.main import main


def events(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "events.out.tfevents.1").touch()
    return folder


def seen(view: Path) -> dict[str, Path]:
    return {link.name: link.resolve() for link in view.iterdir()}


def test_a_run_is_its_rows_once_it_has_them(tmp_path: Path) -> None:
    runs, view = tmp_path / "runs", tmp_path / "view"
    view.mkdir()
    rows = events(runs / "done" / "tb" / "rows" / "BAS-x").parent
    events(runs / "done" / "tb" / "search-x-fold0-seed0")
    marked = events(runs / "marked" / "tb" / "MARKED" / "rows" / "FFN").parent
    trials = events(runs / "tuned" / "tb" / "trials" / "x-fold0-000").parent
    part = events(runs / "shares" / "layer=2" / "tb" / "rows" / "FFN").parent
    begun = events(runs / "begun" / "tb" / "search-x-fold0-seed0").parent
    board.link(runs, view)
    expected = {"done": rows, "marked": marked, "tuned": trials, "shares-layer=2": part, "begun": begun}
    assert seen(view) == expected
    board.link(runs, view)
    assert seen(view) == expected
    expected["begun"] = events(begun / "rows" / "FFN").parent
    events(runs / "new" / "tb" / "search")
    board.link(runs, view)
    assert seen(view) == expected | {"new": runs / "new" / "tb"}
    both = events(runs / "tuned" / "tb" / "rows" / "tuned-x").parent
    board.link(runs, view)
    assert {name: seen(view)[name] for name in ("tuned-rows", "tuned-trials")} == {
        "tuned-rows": both,
        "tuned-trials": trials,
    }
    assert "tuned" not in seen(view)


def test_linked_runs_are_seen_and_no_name_is_lost(tmp_path: Path) -> None:
    runs, view = tmp_path / "runs", tmp_path / "view"
    view.mkdir()
    elsewhere = events(tmp_path / "disk" / "big" / "tb" / "rows" / "FFN").parent
    runs.mkdir()
    (runs / "big").symlink_to(tmp_path / "disk" / "big")
    (tmp_path / "disk" / "big" / "back").symlink_to(runs)  # round and round
    nested, joined = (events(runs / name / "tb" / "rows" / "FFN").parent for name in ("a/b", "a-b"))
    called_tb = events(runs / "tb" / "tb" / "rows" / "FFN").parent
    board.link(runs, view)
    assert seen(view) == {"big": elsewhere, "a-b": nested, "a-b-2": joined, "tb": called_tb} or seen(view) == {
        "big": elsewhere,
        "a-b": joined,
        "a-b-2": nested,
        "tb": called_tb,
    }


def test_the_board_of_one_run_is_its_own(tmp_path: Path) -> None:
    run, view = tmp_path / "demo", tmp_path / "view"
    view.mkdir()
    rows = events(run / "tb" / "rows" / "FFN").parent
    (run / "study.json").touch()
    board.link(run, view)
    assert seen(view) == {"demo": rows}


def test_all_is_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _, command: given.append(command) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        board.show(tmp_path, 7000, every=True)
    assert given[0][given[0].index("--logdir") :][:4] == ["--logdir", str(tmp_path), "--port", "7000"]


STAND_IN = """
import os, sys, time
from pathlib import Path
view = Path(sys.argv[sys.argv.index("--logdir") + 1])
Path("seen.part").write_text(f"{os.getpid()} {view} {' '.join(os.listdir(view))}")
Path("seen.part").rename("seen")
time.sleep(600)
"""


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 0)])
def test_when_the_board_ends_nothing_is_left(tmp_path: Path, how: signal.Signals, code: int) -> None:
    """Neither TensorBoard, which would keep its port, nor the folder of links."""
    events(tmp_path / "runs" / "done" / "tb" / "rows" / "FFN")
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "__init__.py").touch()
    (tmp_path / "tensorboard" / "main.py").write_text(STAND_IN, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH"), *sys.path[:1]])])
    command = [sys.executable, "-c", "from bas.cli.main import main; raise SystemExit(main())", "board"]

    def heed() -> None:  # a shell that starts the suite with & has its processes ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    shown = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, preexec_fn=heed)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "seen").exists():
            assert time.monotonic() < deadline
            assert shown.poll() is None
            time.sleep(0.1)
        number, view, *names = (tmp_path / "seen").read_text().split()
        assert names == ["done"]
        shown.send_signal(how)
        assert shown.wait(PATIENCE) == code
    finally:
        shown.kill()
        shown.wait()
    assert not Path(view).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(number), 0)


def test_runs_that_begin_later_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    events(runs / "done" / "tb" / "rows" / "BAS-x")
    looked: list[list[str]] = []

    class Board:
        def __init__(self, command: list[str]) -> None:
            self.view = Path(command[command.index("--logdir") + 1])

        def wait(self, timeout: float | None = None) -> int:
            looked.append(sorted(path.name for path in self.view.iterdir()))
            if len(looked) == 1:
                events(runs / "other" / "tb" / "rows" / "FFN")
                raise subprocess.TimeoutExpired("tensorboard", timeout or 0.0)
            return 7

        def terminate(self) -> None: ...

    stand_in: Any = Board
    monkeypatch.setattr(subprocess, "Popen", stand_in)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert main(["board", "--runs", str(runs)]) == 7
    assert looked[:2] == [["done"], ["done", "other"]]
