"""What a table says of a row whose predictions are of one class."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bas.report.results import Score
from bas.runs import results
from bas.stats import Interval, Predictions
from bas.studies.probe import numbers as probe_numbers
from bas.studies.probe import page as probe_page
from bas.studies.probe.results import HeadRow
from bas.studies.words import numbers as words_numbers
from bas.studies.words import page as words_page
from bas.studies.words.results import WordsRow
from bas.tasks import EMOTION


def remarks(monkeypatch: pytest.MonkeyPatch, truth: list[str], predicted: list[list[str]]) -> tuple[str, ...]:
    """Of two test parts of three utterances; predictions by seed."""
    index = {"calm": 0, "angry": 1}
    targets = np.array([index[name] for name in truth])
    monkeypatch.setattr(results, "tested", lambda run: (targets, None))
    folds = [SimpleNamespace(test=("a", "b", "c")), SimpleNamespace(test=("d", "e", "f"))]
    run: Any = SimpleNamespace(task=EMOTION, outputs=("calm", "angry"), protocol=SimpleNamespace(folds=folds))
    rows_SN = np.array([[index[name] for name in of_seed] for of_seed in predicted])
    return results.remarks_of(run, Predictions(rows_SN, np.repeat([0, 1], 3)))


C, A = "calm", "angry"


@pytest.mark.parametrize(
    ("predicted", "told"),
    [
        ([[C, A, C, C, C, A]], ()),
        ([[C, C, C, C, A, A]], ("predicts one class alone in 1 of 2 test parts (calm 1)",)),
        ([[C, C, C, A, A, A]], ("predicts one class alone in 2 of 2 test parts (angry 1, calm 1)",)),
        ([[C] * 6, [C, A] * 3], ("predicts one class alone in 2 of 4 test parts (calm 2)",)),
    ],
)
def test_rows_of_one_class_say_so(monkeypatch: pytest.MonkeyPatch, predicted: Any, told: Any) -> None:
    assert remarks(monkeypatch, [C, A, C, A, C, A], predicted) == told


def test_a_part_of_one_class_asks_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    assert remarks(monkeypatch, [C, C, C, A, C, A], [[C, C, C, A, C, A]]) == ()
    told = ("predicts one class alone in 1 of 1 test parts (calm 1)",)
    assert remarks(monkeypatch, [C, C, C, A, C, A], [[C] * 6]) == told


def test_pages_of_probe_and_words_say_so() -> None:
    alone = "predicts one class alone in 1 of 2 test parts (calm 1)"
    score = Score(metrics={}, interval=Interval(0, 1), remarks=(alone,))
    head = HeadRow(**vars(score), against_last=None, against_softmax=None)
    store: Any = SimpleNamespace(heads={"linear": {"state 0": head, "state 1": replace(head, remarks=())}})
    assert probe_page._remarks(store) == [f"linear state 0: {alone}."]
    rows = {"awe": WordsRow({"0": score, "1": replace(score, remarks=())}, score)}
    task: Any = SimpleNamespace(rows=rows, verdicts=(), comparisons=1)
    assert words_page._said(task)[:-1] == [f"awe: {alone}."]


def test_rows_of_probe_and_words_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    targets_N, units_N = np.array([0, 1, 0, 1, 0, 1]), np.array([0, 0, 0, 1, 1, 1])
    for module in (results, words_numbers):
        monkeypatch.setattr(module, "tested", lambda run: (targets_N, units_N))
    folds = [SimpleNamespace(test=("a", "b", "c")), SimpleNamespace(test=("d", "e", "f"))]
    metrics = EMOTION.metrics(("calm", "angry"))
    run: Any = SimpleNamespace(
        task=EMOTION, outputs=("calm", "angry"), protocol=SimpleNamespace(folds=folds), metrics=metrics, headline="WA"
    )
    run.store = SimpleNamespace(info=SimpleNamespace(layers=(0,)))
    folds_N, row_SN = np.repeat([0, 1], 3), np.array([[0, 0, 0, 1, 0, 1]])
    alone = ("predicts one class alone in 1 of 2 test parts (calm 1)",)
    assert words_numbers._score(run, [Predictions(row_SN, folds_N)]).remarks == alone
    probes: Any = SimpleNamespace(row=lambda of_SN: Predictions(of_SN, folds_N))
    heads = {"state 0": row_SN}
    assert probe_numbers._rows(run, (targets_N, units_N), probes, heads)["state 0"].remarks == alone
