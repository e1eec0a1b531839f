"""What a table says of a row whose predictions are of one class, or no better than chance."""

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
    monkeypatch.setattr(results, "tested", lambda run: (targets, np.arange(6)))
    folds = [SimpleNamespace(test=("a", "b", "c")), SimpleNamespace(test=("d", "e", "f"))]
    run: Any = SimpleNamespace(task=EMOTION, outputs=("calm", "angry"), protocol=SimpleNamespace(folds=folds))
    row_SN = np.array([[index[name] for name in of_seed] for of_seed in predicted])
    of_row = results.remarks_of(run, Predictions(row_SN, np.repeat([0, 1], 3)))
    return tuple(remark for remark in of_row if "chance" not in remark)


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


RNG = np.random.default_rng(0)
UNITS_N, FOLDS_N = np.repeat(np.arange(8), 20), np.repeat([0, 1], 80)
TARGETS_N = RNG.integers(0, 4, 160)


def right(share: float) -> np.ndarray:
    """Three seeds' predictions, of which a share is right and the rest is drawn."""
    drawn_SN = RNG.integers(0, 4, (3, 160))
    return np.where(RNG.random((3, 160)) < share, TARGETS_N, drawn_SN)


def run_of(monkeypatch: pytest.MonkeyPatch, folds: int = 2) -> Any:
    for module in (results, words_numbers):
        monkeypatch.setattr(module, "tested", lambda run: (TARGETS_N, UNITS_N))
    parts = [SimpleNamespace(test=("u",) * (160 // folds)) for _ in range(folds)]
    run: Any = SimpleNamespace(task=EMOTION, outputs=tuple("abcd"), protocol=SimpleNamespace(folds=parts))
    run.metrics, run.headline = EMOTION.metrics(tuple("abcd")), "WA"
    run.store = SimpleNamespace(info=SimpleNamespace(layers=(0,)))
    return run


CHANCE = "not shown to be above chance: its interval of UA reaches down to 25.0 or less"
BELOW = f"{CHANCE}; pooled over the folds, a row that has learned nothing comes out below that"


@pytest.mark.parametrize(("share", "folds", "said"), [(0.5, 2, ()), (0.0, 2, (BELOW,)), (0.0, 1, (CHANCE,))])
def test_rows_that_are_not_above_chance_say_so(
    monkeypatch: pytest.MonkeyPatch, share: float, folds: int, said: tuple[str, ...]
) -> None:
    assert results.remarks_of(run_of(monkeypatch, folds), Predictions(right(share), FOLDS_N)) == said


def test_without_an_interval_the_value_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """One seed of one fold."""
    run = run_of(monkeypatch, 1)
    one_N = np.zeros(160)
    assert results.remarks_of(run, Predictions(right(0.5)[:1], one_N)) == ()
    worse_SN = (TARGETS_N[None] + 1) % 4
    assert results.remarks_of(run, Predictions(worse_SN, one_N)) == (CHANCE,)


def test_chance_is_that_of_ua_whatever_the_headline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly always the frequent class: WA is far above a quarter, UA is not."""
    targets_N = np.where(np.arange(160) % 10 < 7, 0, np.arange(160) % 3 + 1)
    run = run_of(monkeypatch)
    monkeypatch.setattr(results, "tested", lambda run: (targets_N, UNITS_N))
    predicted_SN = np.where(RNG.random((3, 160)) < 0.9, 0, RNG.integers(0, 4, (3, 160)))
    assert results.remarks_of(run, Predictions(predicted_SN, FOLDS_N)) == (BELOW,)


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
    run, row_SN = run_of(monkeypatch), right(0.0)
    assert words_numbers._score(run, [Predictions(row_SN, FOLDS_N)]).remarks == (BELOW,)
    predictions = probe_numbers.Probed({}, (), FOLDS_N, 0.0, {})
    (head,) = probe_numbers._rows(run, (TARGETS_N, UNITS_N), predictions, {"state 0": row_SN}).values()
    assert head.remarks == (BELOW,)
