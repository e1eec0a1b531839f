"""Metrics of class indices; any other metric is a function of the same kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np

Metric = Callable[[np.ndarray, np.ndarray], float]
"""metric(targets_N, predictions_N): a finite number, larger is better. Either may have one row for each utterance."""

Limits = tuple[float, float]
"""The least and the largest value that a number can have."""

ANY: Limits = (-math.inf, math.inf)
FRACTION: Limits = (0.0, 1.0)
CORRELATION: Limits = (-1.0, 1.0)

M = TypeVar("M")


def limited(limits: Limits) -> Callable[[M], M]:
    """Declare the limits of a metric (or of a statistic that makes one), which its intervals do not leave."""

    def declare(metric: M) -> M:
        metric.limits = limits  # type: ignore[attr-defined]
        return metric

    return declare


def limits_of(metric: Metric) -> Limits:
    """Those that the metric declares; without, ANY."""
    limits: Limits = getattr(metric, "limits", ANY)
    return limits


def limits_of_difference(metric: Metric) -> Limits:
    """Of the metric's value on one row of predictions less that on another."""
    low, high = limits_of(metric)
    return low - high, high - low


def over_models(metric: Metric) -> Metric:
    """The mean of a metric over models whose predictions lie beside each other, `(N, M, ...)`."""

    @limited(limits_of(metric))
    def mean(targets_N: np.ndarray, predictions_NM: np.ndarray) -> float:
        return float(np.mean([metric(targets_N, predictions_NM[:, m]) for m in range(predictions_NM.shape[1])]))

    return mean


def _check_classes(targets_N: np.ndarray, predictions_N: np.ndarray) -> None:
    assert targets_N.shape == predictions_N.shape == (targets_N.size,), (targets_N.shape, predictions_N.shape)
    assert targets_N.size > 0, "no utterances"
    assert {targets_N.dtype.kind, predictions_N.dtype.kind} <= {"i", "u"}, (targets_N.dtype, predictions_N.dtype)


@limited(FRACTION)
def wa(targets_N: np.ndarray, predictions_N: np.ndarray) -> float:
    """Weighted accuracy, that is plain accuracy, in 0..1. Class indices from 0."""
    _check_classes(targets_N, predictions_N)
    return float(np.count_nonzero(targets_N == predictions_N) / targets_N.size)


@limited(FRACTION)
def ua(targets_N: np.ndarray, predictions_N: np.ndarray) -> float:
    """Unweighted accuracy in 0..1: the mean recall over the classes present in the targets. Class indices from 0."""
    _check_classes(targets_N, predictions_N)
    support_K = np.bincount(targets_N)
    hits_K = np.bincount(targets_N[targets_N == predictions_N], minlength=support_K.size)
    present_K = support_K > 0
    return float(np.mean(hits_K[present_K] / support_K[present_K]))


@limited(FRACTION)
def wf1(targets_N: np.ndarray, predictions_N: np.ndarray) -> float:
    """F1 per class weighted by its support, in 0..1, as scikit-learn's f1_score(average="weighted")."""
    support_K, f1_K = _f1(targets_N, predictions_N)
    return float(support_K @ f1_K / targets_N.size)


@limited(FRACTION)
def macro_f1(targets_N: np.ndarray, predictions_N: np.ndarray) -> float:
    """Mean F1 over the classes present in the targets, in 0..1."""
    support_K, f1_K = _f1(targets_N, predictions_N)
    return float(f1_K[support_K > 0].mean())


def _f1(targets_N: np.ndarray, predictions_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The support of each class in the targets, and its F1.

    Written with bincount, because a randomisation test calls it tens of thousands of times.
    """
    _check_classes(targets_N, predictions_N)
    support_K = np.bincount(targets_N)
    hits_K = np.bincount(targets_N[targets_N == predictions_N], minlength=support_K.size)
    # A class that is predicted but not in the targets has no support, so no weight: cut it off.
    predicted_K = np.bincount(predictions_N, minlength=support_K.size)[: support_K.size]
    return support_K, 2 * hits_K / np.maximum(support_K + predicted_K, 1)
