"""The default comparison where a corpus or a task is not the usual one: few speakers, one, all states, no classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heard import FEATURES, SHARES, heard
from stacking import eight_speakers

from bas.cli.main import main

pytestmark = pytest.mark.slow

SMALL = [f"--set={setting}" for setting in ("epochs=1", "width=8", "stride=1", "budget=8")]


def compared(*more: str, features: str = FEATURES) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The results of a default comparison, and of its searches."""
    words = ["--features", features, *SMALL, "--workers", "1", "--name", "run", *more]
    assert main(["compare", *words]) == 0
    results = json.loads(Path("runs/run/results.json").read_text())
    assert results["settings"]["strategy"] == "race"
    for row in results["rows"]:
        assert all(np.isfinite(metric["mean"]) for metric in row["metrics"].values()), row["row"]
    return results, [json.loads(path.read_text()) for path in sorted(Path("runs/run/jobs").glob("search-*.json"))]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_two_speakers_train_as_committees_of_two() -> None:
    """Three in all: with one of them in the test part there are no more inner folds than two."""
    heard(utterances=40, speakers=3, labelled=True)
    results, searches = compared("--protocol", "speaker:3", "--seeds", "1", "--layer", "0")
    assert len(searches) == 3
    for search in searches:
        assert {trial["replication"] for trial in search["trials"] if trial["solved"]} == {0, 1}
        assert sum(not trial["solved"] for trial in search["trials"]) <= 8
        assert sum(member["weight"] for member in search["members"]) == pytest.approx(1)
    for path in Path("runs/run/jobs").glob("baseline-*.json"):
        assert len(json.loads(path.read_text())["networks"]) == 2
    assert [row["row"] for row in results["rows"]][-2:] == ["BAS ser_wide", "logistic regression"]


def test_with_one_speaker_utterances_are_the_units() -> None:
    heard(utterances=40, speakers=1, labelled=True)
    allowed = ("--protocol", "id:2", "--allow-overlap", "speaker")
    _, searches = compared(*allowed, "--seeds", "1", "--layer", "0")
    assert len(searches) == 2
    for search in searches:
        assert {trial["replication"] for trial in search["trials"] if trial["solved"]} == {0, 1, 2, 3}


def test_all_states_feed_linear_models_and_networks_alike(tmp_path: Path) -> None:
    store = eight_speakers(tmp_path)
    words = ("--protocol", "speaker:2", "--seeds", "1", "--layer", "mix")
    results, searches = compared(*words, features=str(store))
    assert len(searches) == 2
    assert len(results["mix"]["4L transformer"]) == 3
    for search in searches:
        assert sum(trial["solved"] for trial in search["trials"]) == 3 * 4


def test_shares_have_no_linear_model_to_solve_and_are_raced_by_networks() -> None:
    heard(utterances=40, speakers=4, labelled=True)
    Path("mine.py").write_text(SHARES, encoding="utf-8")
    results, searches = compared("--space", "mine.py", "--protocol", "speaker:2", "--seeds", "1", "--layer", "0")
    rows = {row["row"]: row for row in results["rows"]}
    assert list(rows) == ["one each", "BAS mine", "ridge regression", "mean share"]
    for search in searches:
        assert not any(trial["solved"] for trial in search["trials"])
        assert 1 <= len(search["members"]) <= 2
        simplest = [t for t in search["trials"] if set(t["architecture"].values()) == {"none", "mean"}]
        assert simplest, "trained like any other"
