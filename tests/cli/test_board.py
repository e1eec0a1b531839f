"""TensorBoard's view of the runs: rows and trials; where a run has neither yet, all of its trainings."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

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


@pytest.mark.parametrize("every", [False, True])
def test_tensorboard_is_given_the_view_or_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: bool) -> None:
    runs = tmp_path / "runs"
    events(runs / "done" / "tb" / "rows" / "BAS-x")
    given: list[list[str]] = []
    looked: list[list[str]] = []

    class Board:
        def __init__(self, command: list[str]) -> None:
            given.append(command)
            self.waits = 0

        def wait(self, timeout: float | None = None) -> int:
            self.waits += 1
            folder = Path(given[0][given[0].index("--logdir") + 1])
            looked.append(sorted(path.name for path in folder.iterdir()))
            if self.waits == 1 and timeout is not None:
                events(runs / "other" / "tb" / "rows" / "FFN")
                raise subprocess.TimeoutExpired("tensorboard", timeout)
            return 7

        def terminate(self) -> None:
            pass

    stand_in: Any = Board
    monkeypatch.setattr(subprocess, "Popen", stand_in)
    assert main(["board", "--runs", str(runs), "--port", "7000", *(["--all"] if every else [])]) == 7
    assert given[0][-3:-1] == ["--port", "7000"]
    assert looked[0] == ["done"]
    if every:
        assert given[0][given[0].index("--logdir") + 1] == str(runs)
    else:
        assert looked[1] == ["done", "other"]
        assert not Path(given[0][given[0].index("--logdir") + 1]).exists()
