"""The metrics against scikit-learn and hand computations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, recall_score

from bas.stats import Metric, macro_f1, ua, wa, wf1

METRICS = [wa, ua, wf1, macro_f1]


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 8)), min_size=1, max_size=80),
)
def test_metrics_equal_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    # Targets and predictions from different ranges: classes absent from either side come up all the time.
    targets_N, predictions_N = np.array(pairs).T
    present = np.unique(targets_N)
    recall = recall_score(targets_N, predictions_N, labels=present, average="macro", zero_division=0)
    assert wa(targets_N, predictions_N) == pytest.approx(accuracy_score(targets_N, predictions_N))
    assert ua(targets_N, predictions_N) == pytest.approx(recall)
    weighted = f1_score(targets_N, predictions_N, average="weighted", zero_division=0)
    assert wf1(targets_N, predictions_N) == pytest.approx(weighted)
    macro = f1_score(targets_N, predictions_N, labels=present, average="macro", zero_division=0)
    assert macro_f1(targets_N, predictions_N) == pytest.approx(macro)


def test_metrics_by_hand_with_absent_classes() -> None:
    # Class 1 is absent from the targets, class 3 is only predicted, class 2 is never predicted.
    targets_N = np.array([0, 0, 0, 0, 2, 2])
    predictions_N = np.array([0, 0, 0, 3, 0, 1])
    assert wa(targets_N, predictions_N) == pytest.approx(3 / 6)
    assert ua(targets_N, predictions_N) == pytest.approx((3 / 4 + 0) / 2)
    assert wf1(targets_N, predictions_N) == pytest.approx(4 / 6 * (2 * 3 / (4 + 4)))
    assert macro_f1(targets_N, predictions_N) == pytest.approx((2 * 3 / (4 + 4) + 0) / 2)


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_take_only_two_equal_rows_of_class_indices(metric: Metric) -> None:
    good_N = np.array([0, 1, 2])
    for bad in [good_N[:2], good_N[None], good_N.astype(float), np.array([], int)]:
        with pytest.raises(AssertionError):
            metric(good_N, bad)
        with pytest.raises(AssertionError):
            metric(bad, good_N)
    with pytest.raises(AssertionError):
        metric(np.array([], int), np.array([], int))
