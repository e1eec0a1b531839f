"""Shares through the whole house: extracted, searched, retrained, compared, by the same commands as emotion."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from heard import FEATURES, heard

from bas.cli.main import main

pytestmark = pytest.mark.slow

SPACE = """
from bas.blocks import FFN, LSTM, LastStateAttention, MeanPool
from bas.space import SearchSpace
from bas.tasks import Shares

layer = {"LSTM": LSTM, "FFN": FFN}
space = SearchSpace({"layer1": layer}, {"mean": MeanPool, "attention": LastStateAttention})
task = Shares(objective="OBJECTIVE")
baselines = {
    "recurrent": SearchSpace({"layer1": {"LSTM": LSTM}}, MeanPool),
    "one each": SearchSpace({"layer1": {"LSTM": LSTM}}, MeanPool, each_output=True),
}
"""
SETTINGS = ("epochs=3", "width=8", "stride=4", "strategy=gumbel", "committee=1")


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sixty short tones of six speakers: twenty listeners heard the higher ones as bright, and none as sad."""
    monkeypatch.chdir(tmp_path)
    heard(utterances=60, speakers=6)
    return ["--features", FEATURES, "--layer", "0"]


@pytest.mark.parametrize("objective", ["mse", "ccc"])
def test_compared_like_any_other_task(objective: str, features: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(SPACE.replace("OBJECTIVE", objective), encoding="utf-8")
    changes = [word for text in SETTINGS for word in ("--set", text)]
    command = ["compare", *features, "--space", "mine.py", *changes, "--seeds", "2", "--workers", "1", "--name", "run"]
    assert main(command) == 0
    results = json.loads(Path("runs/run/results.json").read_text())
    rows = {row["row"]: row for row in results["rows"]}
    assert list(rows) == ["recurrent", "one each", "BAS mine", "ridge regression", "mean share"]
    assert list(rows["recurrent"]["metrics"]) == ["Spearman", "Spearman bright", "Spearman sad", "Pearson", "1-MAE"]
    assert (results["headline"], results["reference"], results["linear"]) == (
        "Spearman",
        "recurrent",
        "ridge regression",
    )
    assert rows["ridge regression"]["metrics"]["Spearman bright"]["mean"] > 0.6
    assert rows["mean share"]["metrics"]["Spearman"]["mean"] == 0
    # Nobody heard them as sad: nothing to rank, which is said, and no NaN anywhere.
    assert rows["ridge regression"]["metrics"]["Spearman sad"]["mean"] == 0
    assert any("sad is constant" in remark for remark in rows["ridge regression"]["remarks"])
    assert any("bright is constant in 5 of 5 test parts" in remark for remark in rows["mean share"]["remarks"])
    assert rows["one each"]["parameters"] > 1.5 * rows["recurrent"]["parameters"]
    assert rows["ridge regression"]["against_reference"]["units"] == 6
    value, low, high = results["ceiling"]["metrics"]["Spearman bright"]
    assert 0.8 < low < value < high < 1
    page = Path("runs/run/table.md").read_text()
    assert "within each of 5 folds, then averaged" in page
    assert "Ceiling, what knowing every true share would reach with 20 listeners" in page
    assert "nan" not in page.lower()
    job = json.loads(Path("runs/run/jobs/retrain-mine-fold0-seed0.json").read_text())
    assert np.shape(job["test"]["predictions"])[1] == 2
    capsys.readouterr()
    assert main(command) == 0  # all is there: nothing is trained again
    assert json.loads(Path("runs/run/results.json").read_text()) == results


def test_what_needs_classes_refuses_shares(features: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(SPACE.replace("OBJECTIVE", "mse"), encoding="utf-8")
    assert main(["protocol", "cost", *features, "--space", "mine.py"]) == 2
    assert "measured for tasks with classes only" in capsys.readouterr().err
    assert not list(Path("runs").glob("*/jobs"))
    assert main(["compare", *features, "--space", "ser_bas3"]) == 2
    assert "no utterance has a label, which task emotion predicts" in capsys.readouterr().err


def test_audited_and_tuned(features: list[str]) -> None:
    Path("mine.py").write_text(SPACE.replace("OBJECTIVE", "mse"), encoding="utf-8")
    changes = [word for text in ("epochs=2", "width=8", "stride=4") for word in ("--set", text)]
    common = [*features, "--space", "mine.py", *changes, "--workers", "1", "--name"]
    assert main(["audit", *common, "audit", "--seeds", "1", "--strategy", "gumbel", "--variant", "none"]) == 0
    results = json.loads(Path("runs/audit/results.json").read_text())
    assert len(results["spaces"][0]["architectures"]) == 4
    assert results["spaces"][0]["claims"] == {}  # there is neither a simple FFN nor their three blocks
    assert "Claims" not in Path("runs/audit/table.md").read_text()
    assert main(["tune", *common, "tune", "--seeds", "1", "--trials", "1"]) == 0
    rows = [row["row"] for row in json.loads(Path("runs/tune/results.json").read_text())["rows"]]
    assert rows == ["tuned mine", "recurrent", "one each", "ridge regression", "mean share"]


def test_one_share_alone(features: list[str]) -> None:
    text = SPACE.replace("OBJECTIVE", "mse").replace("Shares(", 'Shares(("bright",), ')
    Path("mine.py").write_text(text, encoding="utf-8")
    changes = [word for text in (*SETTINGS, "epochs=1") for word in ("--set", text)]
    assert main(["compare", *features, "--space", "mine.py", *changes, "--seeds", "1", "--name", "run"]) == 0
    results = json.loads(Path("runs/run/results.json").read_text())
    rows = {row["row"]: row for row in results["rows"]}
    assert list(rows["recurrent"]["metrics"]) == ["Spearman", "Pearson", "1-MAE"]
    low, high = rows["ridge regression"]["interval"].values()
    assert low < rows["ridge regression"]["metrics"]["Spearman"]["mean"] < high
    assert "| interval of Spearman |" in Path("runs/run/table.md").read_text()
