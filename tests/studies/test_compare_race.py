"""`bas compare` as it is by default: a race over the wide space, committees, and an ensemble as the searched row."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stacking import eight_speakers

from bas.cli.main import main

pytestmark = pytest.mark.slow

SMALL = [f"--set={setting}" for setting in ("epochs=2", "width=8", "stride=1", "budget=8")]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The run of a comparison, and what it printed."""
    root = tmp_path_factory.mktemp("raced")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        store = eight_speakers(root)
        lines: list[str] = []
        with pytest.MonkeyPatch.context() as capture:
            capture.setattr("rich.console.Console.print", lambda self, *parts, **_: lines.extend(map(str, parts)))
            words = ["--features", str(store), "--protocol", "speaker:2", "--seeds", "2", "--workers", "1"]
            assert main(["compare", *words, *SMALL, "--name", "run"]) == 0
        yield root / "runs/run", "\n".join(lines)


def results(work: tuple[Path, str]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((work[0] / "results.json").read_text())
    return read


def test_the_rows_and_what_they_are(work: tuple[Path, str]) -> None:
    of = results(work)
    rows = [row["row"] for row in of["rows"]]
    assert rows == ["4L transformer", "simple FFN", "BAS ser_wide", "logistic regression"]
    assert {name: of["settings"][name] for name in ("preset", "strategy", "committee", "ensemble")} == {
        **{"preset": "cpu", "strategy": "race", "committee": 4, "ensemble": 2}
    }
    for path in sorted((work[0] / "jobs").glob("baseline-*.json")):
        assert len(json.loads(path.read_text())["networks"]) == 4, "a rival of equal standing"


def test_the_page_says_what_the_race_spent_and_what_its_row_is_made_of(work: tuple[Path, str]) -> None:
    page, race = (work[0] / "table.md").read_text(), results(work)["races"]["ser_wide"]
    made, searches = (
        results(work)["ensembles"]["ser_wide"],
        [json.loads(path.read_text()) for path in (work[0] / "jobs").glob("search-*.json")],
    )
    trials = [[t for t in search["trials"] if not t["solved"]] for search in searches]
    assert race["trainings"] == sum(map(len, trials)) / 4
    assert race["solved"] == 3
    assert race["architectures"] == sum(len({str(t["architecture"]) for t in of}) for of in trials) / 4
    assert race["searches"] == 4
    assert race["trainings"] <= 8
    assert made["members"] == sum(len(search["members"]) for search in searches) / 4
    assert sum(made["weights"].values()) == pytest.approx(1)
    assert list(made["weights"].values()) == sorted(made["weights"].values(), reverse=True)
    heaviest, weight = next(iter(made["weights"].items()))
    members = [m for search in searches for m in search["members"]]
    of_it = [m["weight"] for m in members if " > ".join(m["architecture"].values()) == heaviest]
    assert weight == pytest.approx(sum(of_it) / 4)
    blocks = [block for block in heaviest.split(" > ") if block != "none"]
    shown = " > ".join(blocks if len(blocks) > 1 else ["no block", *blocks])
    spent = f"{race['trainings']:.0f} trainings of {race['architectures']:.0f} architectures on inner folds"
    for text in (
        f"ser_wide, a race of {spent} beside 3 linear models",
        f"ser_wide: its row is not the choice alone, but the mean of {made['members']:.1f} architectures",
        f"mean weights: {shown} {100 * weight:.0f} %",
    ):
        assert text in page
        assert text in work[1]


def test_the_budget_is_told_before_it_is_spent(work: tuple[Path, str]) -> None:
    assert "race: at most 8 trainings in each of 4 searches, 32 in all (setting budget)" in work[1]


def test_nothing_is_left_beside_the_results(work: tuple[Path, str]) -> None:
    kinds = {path.suffix for path in (work[0] / "jobs").iterdir()}
    assert kinds == {".json", ".pt"}, "no checkpoint of a training"


def test_a_search_that_is_done_again_leaves_nothing_either(
    work: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work[0].parents[1])
    shutil.copytree(work[0], "runs/again", dirs_exist_ok=True)
    again = Path("runs/again/jobs")
    (again / "search-ser_wide-fold0-seed0.json").unlink()
    row = (again / "retrain-ser_wide-fold0-seed0.json").stat().st_mtime_ns
    assert main(["retrain", "runs/run/experiment.toml", "--name", "again"]) == 0
    assert (again / "retrain-ser_wide-fold0-seed0.json").stat().st_mtime_ns == row, "the same choice, the same row"
    assert not list(again.glob("*.checkpoint"))


def test_the_same_command_trains_nothing_again(work: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work[0].parents[1])
    before = {path.name: path.stat().st_mtime_ns for path in (work[0] / "jobs").iterdir()}
    assert main(["compare", "runs/run/experiment.toml"]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in (work[0] / "jobs").iterdir()} == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["committee=1"], "setting ensemble=2: needs committee above 1, or ensemble=1"),
        (["budget=7"], "setting budget=7: must be at least 8 for an ensemble of 2 committees of 4"),
        (["ensemble=0"], "setting ensemble=0: must be above 0"),
    ],
)
def test_what_does_not_go_together_is_refused(
    change: list[str],
    words: str,
    work: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(work[0].parents[1])
    more = [f"--set={text}" for text in change]
    assert main(["compare", "--features", "store", *SMALL, *more, "--name", "never"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not Path("runs/never").exists()
