"""Results of a study, written and read: what is no such file is refused by its name and field."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comparisons import RACES, comparison
from records import rewrite

from bas.errors import UserError
from bas.report.comparison_page import markdown
from bas.report.results import write_results
from bas.studies import load_results


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


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    line = "mean ± sd over 2 seeds; the lr has no seed."
    assert line in " ".join(markdown(comparison()).split())
    page = " ".join(markdown(replace(comparison(), seeds=(0,))).split())
    assert "one seed; the lr has no seed." in page
    assert "1 seeds" not in page
    assert "± sd over one" not in page


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
