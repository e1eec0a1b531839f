"""What a leak is worth: the same models under both splits, paired, resumable, and refused where there is no leak."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import refusal
from stores import Fake, quiet, store

from bas.cli import main
from bas.leak import ROWS, measure
from bas.run import Plan, Run
from bas.settings import settings
from bas.stats import paired
from bas.train import LINEAR, Job

CHANGES = {"epochs": "1", "width": "16", "stride": "1"}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Eight speakers, each with a pitch of its own that tells the class only to who knows the speaker."""
    from conftest import tone

    root = tmp_path_factory.mktemp("leak")
    with (root / "cups.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "audio", "label", "speaker", "text"])
        for s in range(8):
            for label in "ab":
                for take in range(3):
                    id_ = f"s{s}{label}{take}"
                    tone(root / f"{id_}.wav", 0.2 + 0.02 * take, hertz=200 + 40 * s + 20 * ((label == "b") == (s % 2)))
                    writer.writerow([id_, f"{id_}.wav", label, f"s{s}", f"t{take}"])
    store(root / "cups.csv", root / "store", Fake())
    space = Path(__file__).parents[1] / "search_spaces/ser_bas3.py"
    return Plan(str(root / "store"), (str(space),), 1, settings("cpu", CHANGES), (0, 1), "cpu")


def test_the_table_is_of_the_predictions_under_both_splits(plan, tmp_path):
    results = measure(tmp_path / "leak", plan, None, None, 1, quiet(), None)
    assert (results["clean"]["rule"], results["leaky"]["rule"]) == ("speaker:5", "id:5")
    assert results["clean"]["marks"] == ()
    assert results["leaky"]["marks"][0].startswith("allowed by --allow-overlap, with speaker on both sides: ")
    assert [row["row"] for row in results["rows"]] == list(ROWS)
    assert (results["tested"], results["units"], results["unit"], results["seeds"]) == (48, 8, "speaker", [0, 1])
    assert len({*results["clean"]["hashes"], *results["leaky"]["hashes"]}) == 4  # every seed splits anew
    predictions = {}
    for side in ("clean", "leaky"):
        rows = []
        for seed in (0, 1):
            run = Run(tmp_path / "leak" / f"{side}-seed{seed}")
            found = {}
            for fold, parts in enumerate(run.protocol.folds):
                job = run.result(Job("linear", LINEAR, fold, seed).name)
                assert job["protocol"] == run.protocol.hash
                found |= dict(zip(parts.test, job["test"]["predictions"], strict=True))
            rows.append([found[u.id] for u in run.utterances])
        predictions[side] = np.array(rows)
    speakers = np.array([u.speaker for u in run.utterances])
    by_hand = paired(run.targets, predictions["leaky"], predictions["clean"], speakers, run.task.metrics["WA"])
    (linear,) = [row for row in results["rows"] if row["row"] == LINEAR]
    found = linear["metrics"]["WA"]["leak"]
    assert (found["difference"], found["low"], found["p"]) == (by_hand.difference, by_hand.low, by_hand.p)
    hits = {side: float(np.mean(p == run.targets)) for side, p in predictions.items()}
    assert linear["metrics"]["WA"]["leaky"]["mean"] == pytest.approx(hits["leaky"])
    assert found["difference"] == pytest.approx(hits["leaky"] - hits["clean"])
    page = (tmp_path / "leak" / "leak.md").read_text()
    assert page.startswith("# cups: what the leak of id:5 (MARKED) is worth, against speaker:5")
    assert "Mark of the leaky split" in page
    assert json.loads((tmp_path / "leak" / "leak.json").read_text())["tested"] == 48


def test_a_second_start_trains_nothing_again(plan, tmp_path):
    one = measure(tmp_path / "leak", plan, "speaker:3", None, 1, quiet(), None)
    jobs = {p: p.stat().st_mtime_ns for p in (tmp_path / "leak").rglob("jobs/*.json")}
    (tmp_path / "leak/leaky-seed1/jobs/linear-logistic-regression-fold2-seed1.json").unlink()
    assert measure(tmp_path / "leak", plan, "speaker:3", None, 1, quiet(), None)["rows"] == one["rows"]
    again = {p: p.stat().st_mtime_ns for p in (tmp_path / "leak").rglob("jobs/*.json")}
    assert {p.name for p in jobs if jobs[p] != again[p]} == {"linear-logistic-regression-fold2-seed1.json"}


@pytest.mark.parametrize(
    ("clean", "leaky", "told"),
    [
        ("id:3", None, ("--clean id:3", "shares what task emotion forbids")),
        (None, "speaker:4", ("--leaky speaker:4", "shares nothing", "speaker")),
        (None, "no:5", ("protocol 'no:5'",)),
    ],
)
def test_what_is_no_leak_is_refused_before_anything_is_written(plan, tmp_path, clean, leaky, told):
    line = refusal(measure, tmp_path / "leak", plan, clean, leaky, 1, quiet(), None)
    assert all(part in line for part in told), line
    assert list(tmp_path.iterdir()) == []


def test_the_verb(plan, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--features", plan.features, "--layer", "1", "--workers", "1", "--seeds", "1", "--clean", "speaker:3"]
    words += [w for name, value in CHANGES.items() for w in ("--set", f"{name}={value}")]
    assert main(["protocol", "cost", *words, "--leaky", "text:3"]) == 0
    told = capsys.readouterr().out
    assert "what the leak of text:3 (MARKED) is worth, against speaker:3" in told
    assert "runs/leak-store-layer1-cpu/leak.md" in told
