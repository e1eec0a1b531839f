"""Runs listed, shown again, and set side by side on the same folds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from heard import FEATURES, heard
from records import record

import bas
from bas.cli.main import main
from bas.errors import UserError
from bas.report.between import differences
from bas.runs.plan import Job, Kind
from bas.runs.run import Run
from bas.util.files import write_json

pytestmark = pytest.mark.slow

SMALL = [f"--set={setting}" for setting in ("width=8", "stride=2", "committee=1", "strategy=random")]
WORDS = ["--features", FEATURES, "--space", "ser_bas3", *SMALL, "--workers", "1"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three comparisons: two on the same folds, with one and with two seeds; and one on other folds."""
    folder = tmp_path_factory.mktemp("between")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        heard(utterances=32, speakers=4, labelled=True)
        for name, epochs, seeds, rule in (
            ("one", 1, 1, "speaker:2"),
            ("two", 3, 2, "speaker:2"),
            ("four", 1, 1, "speaker:4"),
        ):
            more = [f"--set=epochs={epochs}", "--seeds", str(seeds), "--protocol", rule, "--name", name]
            assert main(["compare", *WORDS, *more]) == 0
        yield folder


def right(name: str, row: str, kind: Kind, seeds: int) -> float:
    """The share of test utterances that a row has right, over its seeds, by its jobs."""
    run = Run.open(Path("runs") / name)
    hits = []
    for seed in range(seeds):
        for number, fold in enumerate(run.protocol.folds):
            said = run.result(Job(kind, row, number, seed).name)["test"]["predictions"]
            hits += [run.targets[run.position[i]] == p for i, p in zip(fold.test, said, strict=True)]
    return float(np.mean(hits))


def test_rows_are_paired_over_the_same_utterances(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row.row: row for row in bas.between("runs/one", "runs/two")}
    assert list(rows) == ["4L transformer", "3L transformer", "simple FFN", "BAS ser_bas3", "logistic regression"]
    same = rows["logistic regression"].second_against_first
    assert same.difference == 0, "no epoch changes it"
    one, two = right("one", "simple FFN", Kind.BASELINE, 1), right("two", "simple FFN", Kind.BASELINE, 2)
    row = rows["simple FFN"]
    assert (row.first.mean, row.second.mean) == pytest.approx((one, two))
    assert row.second_against_first.difference == pytest.approx(two - one)
    turned = {row.row: row for row in bas.between("runs/two", "runs/one")}["simple FFN"]
    assert turned.second_against_first.difference == pytest.approx(one - two)
    assert turned.second_against_first.p == pytest.approx(row.second_against_first.p)
    capsys.readouterr()
    assert main(["runs", "compare", "runs/one", "runs/two"]) == 0
    said = capsys.readouterr().out
    assert "two against one" in said
    assert "+0.0" in said.split("logistic regression")[1]
    assert "one and two were made with: setting epochs: 1, 3.\n" in said
    assert main(["runs", "compare", "runs/one", "runs/one"]) == 0
    assert "Nothing that changes a number differs between the two but their seeds.\n" in capsys.readouterr().out


def test_what_two_runs_were_made_of_is_told(home: Path) -> None:
    """Codes and stores are named, not their hashes; what only one has is said to be."""
    one, two = Run.open(Path("runs/one")), Run.open(Path("runs/two"))
    path = Path("runs/two/run.json")
    text = path.read_text()
    written = record(path)
    made = written["made_of"]
    made |= {"features": "0", "layer": "mix of 0, 1", "headline": "UA", "space ser_bas3": "0", "space mine": "1"}
    write_json(path, written)
    try:
        assert differences([one, two]) == [
            f"features: log-mel in {Path(FEATURES).name}, log-mel in {Path(FEATURES).name}",
            "layer: 0, mix of 0, 1",
            "headline: WA, UA",
            "setting epochs: 1, 3",
            "space ser_bas3 (two versions)",
            "space mine (in one of them)",
        ]
    finally:
        path.write_text(text)


def test_other_folds_or_labels_are_refused(home: Path) -> None:
    with pytest.raises(UserError, match="runs/one and runs/four: have other folds"):
        bas.between("runs/one", "runs/four")
    with pytest.raises(UserError, match=r"runs/none: no results\.json"):
        bas.between("runs/one", "runs/none")


def test_runs_are_listed_and_shown_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", *WORDS, "--set=epochs=1", "--seeds", "1", "--protocol", "speaker:2", "--name", "begun"]) == 0
    capsys.readouterr()
    assert main(["runs", "list"]) == 0
    said = capsys.readouterr().out
    first = [line.split("│")[1].strip() for line in said.splitlines() if line.startswith("│")]
    assert [name for name in first if name] == ["begun", "four", "one", "two"]
    assert "not complete" in said
    results = json.loads(Path("runs/two/results.json").read_text())
    assert f"{100 * results['rows'][0]['metrics']['WA']['mean']:.1f}" in said
    assert main(["runs", "show", "runs/two"]) == 0
    again = capsys.readouterr().out
    assert "which downstream model?" in again
    assert main(["runs", "show", "runs/begun"]) == 2
    assert "runs/begun: no results.json: not a run, or not complete" in capsys.readouterr().err
    damaged = Path("runs/four/results.json")
    text = damaged.read_text()
    damaged.write_text(text[:-50])
    assert main(["runs", "list"]) == 0
    damaged.write_text(text)
    said = capsys.readouterr().out
    assert "not readable, see below" in said
    assert "runs/four/results.json: not readable as JSON" in said


def test_a_folder_without_runs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", "--runs", str(tmp_path / "none")]) == 2
    assert main(["runs", "list", "--runs", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no such folder; `bas demo` makes a first run" in said
    assert "no run in it" in said
