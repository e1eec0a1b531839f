"""The linear row: how strongly it is regularised."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from bas.runs.linear import STRENGTHS, fit_linear


class Echo(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Predicts its own inverse regularisation."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def fit(self, X: np.ndarray, y: np.ndarray) -> Echo:
        self.fitted_ = len(X)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return np.full(len(X), self.strength)


@pytest.mark.parametrize(
    ("scores", "expected"), [({0.03: 0.9, 0.3: 0.8}, 0.03), ({0.3: 0.9, 0.1: 0.9, 0.003: 0.8}, 0.1), ({}, STRENGTHS[0])]
)
def test_the_best_on_valid_is_taken_and_of_equals_the_strongest_regularisation(
    scores: Mapping[float, float], expected: float
) -> None:
    fit, valid = (np.ones((6, 2)), np.zeros(6)), (np.ones((4, 2)), np.ones(4))

    def metric(targets: np.ndarray, predictions: np.ndarray) -> float:
        assert np.array_equal(targets, valid[1]), "chosen on the valid part"
        return scores.get(float(predictions[0]), 0.5)

    model, strength = fit_linear(Echo, metric, fit, valid)
    assert strength == expected
    assert model[-1].strength == expected
    assert model[-1].fitted_ == 6
