"""Results of a study, written and read: what is no such file is refused by its name and field."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from records import rewrite

from bas.encoders import EncoderInfo
from bas.errors import UserError
from bas.report.comparison_page import markdown
from bas.report.results import Comparison, Ensembles, Races, Row, write_results
from bas.runs.results import Split
from bas.stats import FalseVerdicts, Interval, Paired, Spread
from bas.stats.decisions import summarise
from bas.studies import load_results
from bas.training.settings import PRESETS

SPLIT = Split("p", "cups", "emotion", "speaker:2", 0, "speaker", "", False, (), ("a note",), "abc", "p (speaker:2)")


def row(name: str, against: Paired | None = None) -> Row:
    return Row(
        metrics={"WA": Spread(0.5, 0.1), "UA": Spread(0.4, 0.0)},
        interval=Interval(0.3, 0.7),
        row=name,
        seeds=2,
        remarks=(),
        fold_mean={"WA": 0.5, "UA": 0.4},
        parameters=12.0,
        train_seconds=1.0,
        search_seconds=None,
        against_reference=against,
        against_linear=against,
    )


RACES = Races(
    searches=2,
    trainings=30.0,
    architectures=17.5,
    probability=0.4,
    regret=0.02,
    gain=0.01,
    noise=0.05,
    solved=3.0,
    diverged=2,
    alike=1,
    early=0,
)


def comparison() -> Comparison:
    searches = [{"layer1": {"a": 0.75, "b": 0.25}}] * 2
    return Comparison(
        run="r",
        corpus="cups",
        note="",
        encoder=EncoderInfo("log-mel", "1", "log-mel", 1, 80, 100.0),
        layer="mix",
        layers=(0, 1),
        protocol=SPLIT,
        settings=PRESETS["cpu"],
        device="cpu",
        folds=2,
        seeds=(0, 1),
        tested=16,
        unit="speaker",
        units=8,
        without_unit=0,
        headline="WA",
        pooled=True,
        reference="4L",
        linear="lr",
        rows=(row("4L"), row("lr", Paired(0.1, 0.02, 0.2, 0.01, 0.04, 7.0, 8, False, (2, 1), 0.02))),
        ceiling=None,
        false_verdicts=FalseVerdicts(1, 20),
        verdicts=("so",),
        decisions={"four": summarise(searches, [{"layer1": "a"}, {"layer1": "b"}])},
        sequences={"four": ("a", "b")},
        mix={"4L": {"0": Spread(0.25, 0.0)}},
        races={"four": RACES},
        ensembles={"four": Ensembles(members=2.5, weights={"FFN > mean": 0.6, "none > mean": 0.4})},
    )


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_results(tmp_path, comparison())
    raw = json.loads((tmp_path / "results.json").read_text())
    assert (raw["format"], raw["study"]) == (3, "compare")
    assert raw["rows"][1]["against_linear"]["verdict"] == "better", "for other programs"
    assert load_results(tmp_path) == comparison()


def test_a_table_as_a_data_frame(tmp_path: Path) -> None:
    frame = comparison().frame()
    assert frame["row"].tolist() == ["4L", "lr"]
    assert frame["metrics.WA.sd"].tolist() == [0.1, 0.1]
    assert frame["against_reference.verdict"].tolist()[1] == "better"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw.pop("format"), ("format: must be 3, not None",)),
        (lambda raw: raw.update(format=1), ("format: must be 3, not 1", "give the same command again")),
        (lambda raw: raw.update(study="dance"), ("study: 'dance' is no study",)),
        (lambda raw: raw.update(study="../x"), ("study: '../x' is no study",)),
        (lambda raw: raw.pop("rows"), ("rows is missing",)),
        (lambda raw: raw["rows"][1]["metrics"]["WA"].pop("mean"), ("rows[1].metrics.WA: mean is missing",)),
        (lambda raw: raw["rows"][0].update(seeds="two"), ("rows[0].seeds: must be a whole number, not 'two'",)),
        (lambda raw: raw["protocol"].update(mark="x"), ("protocol: mark is unknown",)),
        (lambda raw: raw.update(settings={**raw["settings"], "lr": -1}), ("lr=-1",)),
    ],
)
def test_another_file_is_refused_by_name_and_field(
    change: Callable[[dict[str, Any]], object], words: tuple[str, ...], tmp_path: Path
) -> None:
    write_results(tmp_path, comparison())
    path = tmp_path / "results.json"
    raw = json.loads(path.read_text())
    change(raw)
    rewrite(path, raw)
    with pytest.raises(UserError) as error:
        load_results(tmp_path)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_results(tmp_path)


def test_the_page_counts_trainings_that_diverged() -> None:
    line = "four: 2 of the searches' trainings diverged: these architectures were not taken."
    assert line in markdown(comparison())
    races = {"four": replace(RACES, diverged=0)}
    assert "diverged" not in markdown(replace(comparison(), races=races))
