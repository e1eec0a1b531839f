"""What a leak is worth: the same models under both splits, paired, resumable, and refused where there is no leak."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT
from records import record, rewrite
from refusals import refusal
from stores import Fake, quiet, store

from bas.cli.main import main
from bas.encoders import EncoderInfo
from bas.runs.baselines import BASELINES
from bas.runs.plan import Job, Kind, Plan
from bas.runs.run import Inputs, Run
from bas.runs.start import split
from bas.stats import FalseVerdicts, Paired, Predictions, Spread, paired
from bas.studies import load_results
from bas.studies.leak.numbers import tabulate
from bas.studies.leak.page import _cells, markdown
from bas.studies.leak.results import Leak, LeakRow, LeakScore, Side
from bas.studies.leak.study import _splits, measure
from bas.training.settings import settings
from bas.util.typed import to_plain

pytestmark = pytest.mark.slow

CHANGES = {"epochs": "1", "width": "16", "stride": "1"}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Eight speakers, each with a pitch of its own that tells the class only to who knows the speaker."""
    from sounds import tone

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
    space = ROOT / "search_spaces/ser_bas3.py"
    return Plan(str(root / "store"), (str(space),), 1, settings("cpu", CHANGES), (0, 1), "cpu")


def test_the_table_is_of_the_predictions_under_both_splits(plan: Any, tmp_path: Path) -> None:
    results = to_plain(measure(tmp_path / "leak", Inputs.open(plan), None, None, 1, quiet(), None))
    assert (results["clean"]["rule"], results["leaky"]["rule"]) == ("speaker:5", "id:5")
    assert results["clean"]["marks"] == []
    assert results["leaky"]["marks"][0].startswith("allowed by --allow-overlap, with speaker on both sides: ")
    assert [row["row"] for row in results["rows"]] == ["logistic regression", *BASELINES]
    assert (results["tested"], results["units"], results["unit"], results["seeds"]) == (48, 8, "speaker", [0, 1])
    assert len({*results["clean"]["hashes"], *results["leaky"]["hashes"]}) == 4  # every seed has splits of its own
    predictions = {}
    for side in ("clean", "leaky"):
        rows = []
        for seed in (0, 1):
            run = Run.open(tmp_path / "leak" / f"{side}-seed{seed}")
            predicted: dict[str, Any] = {}
            for fold, parts in enumerate(run.protocol.folds):
                job = run.result(Job(Kind.LINEAR, "logistic regression", fold, seed).name)
                assert job["protocol"] == run.protocol.hash
                predicted |= dict(zip(parts.test, job["test"]["predictions"], strict=True))
            rows.append([predicted[u.id] for u in run.utterances])
        predictions[side] = np.array(rows)
    speakers = np.array([u.speaker for u in run.utterances])
    leaky, clean = (Predictions(predictions[side], np.zeros(len(speakers), int)) for side in ("leaky", "clean"))
    by_hand = paired(run.targets, leaky, clean, speakers, run.metrics["WA"])
    (linear,) = [row for row in results["rows"] if row["row"] == "logistic regression"]
    leak = linear["metrics"]["WA"]["leak"]
    assert (leak["difference"], leak["low"], leak["p"]) == (by_hand.difference, by_hand.low, by_hand.p)
    hits = {side: float(np.mean(p == run.targets)) for side, p in predictions.items()}
    assert linear["metrics"]["WA"]["leaky"]["mean"] == pytest.approx(hits["leaky"])
    assert leak["difference"] == pytest.approx(hits["leaky"] - hits["clean"])
    page = (tmp_path / "leak" / "table.md").read_text()
    assert page.startswith("# cups: what the leak of id:5 (MARKED) is worth, against speaker:5")
    assert "Mark of the leaky split" in page
    assert to_plain(load_results(tmp_path / "leak")) == results


def test_both_sides_train_on_equally_many(plan: Any) -> None:
    for seed, (clean, leaky) in enumerate(_splits(Inputs.open(plan), "speaker:3", None)):
        assert (clean.rule, leaky.rule) == ("speaker:3", "id:3")  # as many folds
        assert clean.marks == ()
        assert leaky.marks
        assert len({len(fold.fit) for protocol in (clean, leaky) for fold in protocol.folds}) == 1
        for protocol, allowed in ((clean, ()), (leaky, ("speaker",))):
            whole = split(Inputs.open(plan), protocol.rule, seed, allowed)
            assert any(len(fold.fit) < len(before.fit) for fold, before in zip(leaky.folds, whole.folds, strict=True))
            for fold, before in zip(protocol.folds, whole.folds, strict=True):
                assert set(fold.fit) <= set(before.fit)
                assert (fold.valid, fold.test) == (before.valid, before.test)
                of_a = sum(i[2] == "a" for i in before.fit) / len(before.fit)
                assert sum(i[2] == "a" for i in fold.fit) == pytest.approx(of_a * len(fold.fit), abs=1)


def row_of(name: str, difference: float, low: float, high: float, p: float) -> LeakRow:
    leak = Paired(difference, low, high, p, 0.02, 9.0, 10, False, (2, 2), 0.01)
    score = LeakScore(clean=Spread(0.8, 0.01), leaky=Spread(0.8 + difference, 0.02), leak=leak, sd=0.03)
    return LeakRow(row=name, metrics={"WA": score})


def test_the_cells_say_what_the_numbers_are() -> None:
    rows = (
        row_of("up", 0.05, 0.01, 0.09, 0.01),
        row_of("down", -0.05, -0.09, -0.01, 0.01),
        row_of("even", 0.01, -0.01, 0.03, 0.4),
    )
    sides = [Side(rule=r, descriptions=(), hashes=(), marks=(), notes=(), fit=8.0) for r in ("speaker:5", "id:5")]
    results = Leak(
        **{"run": "r", "corpus": "cups", "note": "", "encoder": EncoderInfo("e", "1", "e", 1, 8, 50.0), "layer": 0},
        **{"settings": settings("cpu"), "headline": "WA", "seeds": (0, 1), "tested": 8, "of": 8},
        **{"unit": "speaker", "units": 10, "clean": sides[0], "leaky": sides[1], "rows": rows},
        false_verdicts=FalseVerdicts(1, 12),
    )
    heading, cells = _cells(results, ("WA",))
    assert heading == ["model", "metric", "speaker:5", "id:5 (MARKED)", "leak", "sd", "95 % interval", "p", "verdict"]
    assert cells[0] == ["up", "WA", "80.0 ± 1.0", "85.0 ± 2.0", "+5.0", "3.0", "+1.0 to +9.0", "0.01", "inflated"]
    assert [row[-1] for row in cells] == ["inflated", "deflated", "tie"]
    page = markdown(results)
    assert "- Power: a true difference of 6.3 points" in page
    assert "- 3 comparisons, not corrected for their number: 2 are better or worse; corrected (Holm), 2: leaky" in page
    assert "- A/A check, each seed of a row against its other seeds: 1 of 12 verdicts are false (8.3 %;" in page
    assert "sign-flip" not in page
    one = replace(results, seeds=(0,))
    assert next(row[5] for row in _cells(one, ("WA",))[1]) == "–", "of one seed"
    assert "With one seed nothing shows the noise of training" in markdown(one)
    assert "Power" not in markdown(one)


def test_a_lucky_seed_of_leaky_models_is_a_tie(plan: Any, tmp_path: Path) -> None:
    """All speakers alike gain by it: they alone, without the noise of training, would make it a verdict."""
    measure(tmp_path, Inputs.open(plan), "speaker:3", None, 1, quiet(), None)
    runs = {side: [Run.open(tmp_path / f"{side}-seed{seed}") for seed in (0, 1)] for side in ("clean", "leaky")}
    for side, of_side in runs.items():
        for seed, run in enumerate(of_side):
            for fold, parts in enumerate(run.protocol.folds):
                right = 2 if (side, seed) == ("leaky", 0) else 1  # of three takes
                truth = [int(run.targets[run.position[i]]) for i in parts.test]
                said = [k if int(i[-1]) < right else 1 - k for i, k in zip(parts.test, truth, strict=True)]
                path = run.job_path(Job(Kind.BASELINE, "4L transformer", fold, seed).name)
                raw = record(path)
                raw["test"]["predictions"] = said
                rewrite(path, raw)
    leak = {row.row: row.metrics["WA"].leak for row in tabulate(tmp_path, runs).rows}["4L transformer"]
    assert leak.difference == pytest.approx(1 / 6)
    assert leak.verdict == "tie"


def test_a_second_start_trains_nothing_again(plan: Any, tmp_path: Path) -> None:
    one = measure(tmp_path / "leak", Inputs.open(plan), "speaker:3", None, 1, quiet(), None)
    jobs = {p: p.stat().st_mtime_ns for p in (tmp_path / "leak").rglob("jobs/*.json")}
    (tmp_path / "leak/leaky-seed1/jobs/linear-logistic-regression-fold2-seed1.json").unlink()
    assert measure(tmp_path / "leak", Inputs.open(plan), "speaker:3", None, 1, quiet(), None).rows == one.rows
    again = {p: p.stat().st_mtime_ns for p in (tmp_path / "leak").rglob("jobs/*.json")}
    assert {p.name for p in jobs if jobs[p] != again[p]} == {"linear-logistic-regression-fold2-seed1.json"}


@pytest.mark.parametrize(
    ("clean", "leaky", "parts"),
    [
        ("id:3", None, ("--clean id:3", "shares what task emotion forbids")),
        (None, "speaker:4", ("--leaky speaker:4", "shares nothing", "speaker")),
        (None, "no:5", ("protocol 'no:5'",)),
        ("speaker:60/20/20", None, ("--clean speaker:60/20/20", "one fold", "--leaky", "id:5")),
        ("speaker:40/20/40", "id:40/20/40", ("speaker:40/20/40", "id:40/20/40", "both test with every seed")),
    ],
)
def test_what_is_no_leak_is_refused_before_anything_is_written(
    plan: Any, tmp_path: Path, clean: Any, leaky: Any, parts: Any
) -> None:
    line = refusal(measure, tmp_path / "leak", Inputs.open(plan), clean, leaky, 1, quiet(), None)
    assert all(part in line for part in parts), line
    assert list(tmp_path.iterdir()) == []


def test_the_verb(
    plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--features", plan.features, "--layer", "best", "--workers", "1", "--seeds", "1", "--clean", "speaker:3"]
    words += [w for name, value in CHANGES.items() for w in ("--set", f"{name}={value}")]
    assert main(["protocol", "cost", *words, "--leaky", "text:3"]) == 0
    shown = capsys.readouterr().out
    assert "what the leak of text:3 (MARKED) is worth, against speaker:3" in shown
    assert "runs/leak-store-layerbest-cpu/table.md" in shown
    (run,) = Path("runs/leak-store-layerbest-cpu").glob("clean-seed0")
    assert list(run.glob("jobs/layer-best-fold*.json"))
    assert list(Path("runs/leak-store-layerbest-cpu/leaky-seed0/tb").iterdir()) == [
        Path("runs/leak-store-layerbest-cpu/leaky-seed0/tb/MARKED")
    ]
    assert not (run / "tb/MARKED").exists()
    assert main(["search", *words[:-2], "--name", "leak-store-layerbest-cpu"]) == 2
