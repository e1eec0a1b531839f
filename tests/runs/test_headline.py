"""The metric that choices and verdicts go by, where the user names one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from records import record, rewrite
from refusals import refusal
from stacking import eight_speakers, new_run

from bas.runs.linear import STRENGTHS
from bas.runs.run import Inputs, Run
from bas.runs.session import Session
from bas.runs.start import reopen, split, start
from bas.training.settings import PRESETS


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return eight_speakers(tmp_path_factory.mktemp("headline"))


def again(run: Run, folder: Path | None = None, **changes: object) -> Run:
    """The run begun once more, with another plan; folder: another than its own."""
    inputs = Inputs.open(replace(run.plan, **changes))  # type: ignore[arg-type]
    return start(folder or run.folder, inputs, split(inputs, None, 0))


def test_the_chosen_metric_is_the_headline(tmp_path: Path, features: Path) -> None:
    usual = new_run(tmp_path / "usual", features)
    assert usual.headline == "WA"
    run = again(usual, tmp_path / "chosen", headline="MF1")
    assert run.headline == "MF1"
    assert record(run.folder / "run.json")["plan"]["headline"] == "MF1"
    assert Run.open(run.folder).headline == "MF1"


def test_another_headline_is_another_run(tmp_path: Path, features: Path) -> None:
    run = new_run(tmp_path / "run", features)
    said = refusal(again, run, headline="UA")
    assert said == f"{run.folder}: made with headline WA, now UA; give another --name"
    assert again(run, headline="WA").headline == "WA", "the usual one, by name, is the same run"


def test_an_unknown_metric_is_refused_before_anything_is_split(tmp_path: Path, features: Path) -> None:
    plan = replace(new_run(tmp_path / "run", features).plan, headline="accuracy")
    expected = "--headline accuracy: must be one of WA, UA, WF1, MF1"
    assert refusal(split, Inputs.open(plan), "no rule", 0) == expected
    assert refusal(Run, tmp_path, Inputs.open(plan), None) == expected


def test_a_run_of_before_the_choice_reads_as_before(tmp_path: Path, features: Path) -> None:
    run = new_run(tmp_path / "old", features)
    path = run.folder / "run.json"
    old = record(path)
    for name in ("headline", "setting class_weights", "setting label_smoothing"):
        del old["made_of"][name]
    del old["plan"]["headline"]
    for name in ("class_weights", "label_smoothing"):
        del old["plan"]["settings"][name]
    rewrite(path, old)
    assert reopen(run.folder).headline == "WA"
    assert reopen(run.folder).plan.settings.class_weights == "none"
    smooth = replace(run.plan.settings, label_smoothing=0.1)
    assert "made with setting label_smoothing 0.0, now 0.1" in refusal(again, run, settings=smooth)
    assert "made with headline WA, now UA" in refusal(again, run, headline="UA")
    assert again(run).headline == "WA"
    assert PRESETS["cpu"].label_smoothing == 0


def test_a_linear_rows_strength_is_chosen_by_the_headline(
    tmp_path: Path, features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bas.runs import linear

    asked = []

    def noted(model: object, metric: object, splits: object, strengths: object) -> float:
        asked.append(metric)
        return STRENGTHS[0]

    monkeypatch.setattr(linear, "choose_strength", noted)
    run = again(new_run(tmp_path / "first", features), tmp_path / "run", headline="UA")
    linear.fit_linear_row(Session(run), "logistic regression", 0)
    assert asked == [run.metrics["UA"]]
