"""Small runs whose trainings are done in stacks and one by one, and what must be alike of the two."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from records import record
from running import begin
from sounds import tone
from stores import Fake, store

from bas.runs.plan import Job, Kind, Plan
from bas.runs.run import Run
from bas.training.settings import settings

SPACES = ROOT / "search_spaces"


def eight_speakers(root: Path) -> Path:
    """A store of eight speakers in five folds of one and two, 48 utterances."""
    with (root / "cups.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "audio", "label", "speaker"])
        for s in range(8):
            for label in "ab":
                for take in range(3):
                    id_ = f"s{s}{label}{take}"
                    tone(root / f"{id_}.wav", 0.2 + 0.06 * take, hertz=200 + 31 * s + 300 * (label == "b") * (take > 0))
                    writer.writerow([id_, f"{id_}.wav", label, f"s{s}"])
    store(root / "cups.csv", root / "store", Fake())
    return root / "store"


def new_run(folder: Path, features: Path, space: Path = SPACES / "ser_bas3.py", **changes: str) -> Run:
    given = {"epochs": "3", "width": "16", "stride": "1", "batch_size": "7", "precision": "float32", **changes}
    plan = Plan(str(features), (str(space),), 1, settings("cpu", given), (0, 1), "cpu")
    return begin(folder, plan)


def alone(run: Run, *numbers: int) -> list[Job]:
    name, folds = next(iter(run.spaces)), range(len(run.protocol.folds))
    return [Job(Kind.ALONE, name, f, s, n) for s in run.plan.seeds for f in folds for n in numbers]


def results(run: Run) -> dict[str, Any]:
    return {path.stem: record(path) for path in sorted((run.folder / "jobs").glob("*.json"))}


def compare(result: dict[str, Any], expected: dict[str, Any]) -> None:
    """Losses and logits to float tolerance, all else exactly, but for the seconds."""
    assert list(result) == list(expected)
    for name, one in expected.items():
        other = result[name]
        assert list(other) == list(one)
        for key in one.keys() - {"seconds", "networks", "test"}:
            assert other[key] == one[key], (name, key)
        told, expected_told = dict(other["test"]), dict(one["test"])
        for logits, wanted in zip(told.pop("logits") or (), expected_told.pop("logits") or (), strict=True):
            assert logits == pytest.approx(wanted, rel=1e-4, abs=1e-5)
        assert told == expected_told, name
        assert other["seconds"] > 0
        (curve,), (expected_curve,) = other["networks"], one["networks"]
        assert curve["kept_epoch"] == expected_curve["kept_epoch"]
        for a, b in zip(curve["epochs"], expected_curve["epochs"], strict=True):
            assert list(a) == list(b)
            assert (a["loss"], a["score"]) == pytest.approx((b["loss"], b["score"]), rel=1e-4)
            assert a["valid"] == pytest.approx(b["valid"], rel=1e-4)
