"""The linear row: how strongly it is regularised."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression

from bas.runs import results
from bas.runs.linear import AGAIN, STRENGTHS, fit_linear, refit
from bas.runs.results import LinearResult, pooled


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


def logistic(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=1000)


def test_again_on_other_draws_of_the_training_units() -> None:
    rng = np.random.default_rng(0)
    units_U, targets_U = np.repeat(np.arange(8), 10), np.tile(np.arange(2), 40)
    x_UD = rng.normal(0, 1, (80, 5)) + targets_U[:, None]
    models = refit(logistic, 0.1, (x_UD, targets_U), units_U, seed=3)
    assert len(models) == AGAIN
    weights = np.array([model[-1].coef_[0] for model in models])
    assert len(np.unique(weights, axis=0)) == AGAIN, "each is another draw"
    assert all(model[-1].C == 0.1 for model in models)
    same = refit(logistic, 0.1, (x_UD, targets_U), units_U, seed=3)
    assert np.array_equal(weights, [model[-1].coef_[0] for model in same])


def test_whole_units_are_drawn() -> None:
    """With two units a draw is one of them twice, or both: three different models at most."""
    rng = np.random.default_rng(0)
    units_U, targets_U = np.repeat(np.arange(2), 40), np.tile(np.arange(2), 40)
    x_UD = rng.normal(0, 1, (80, 5)) + targets_U[:, None]
    models = [model for seed in range(6) for model in refit(logistic, 0.1, (x_UD, targets_U), units_U, seed)]
    assert len(np.unique(np.array([model[-1].coef_[0] for model in models]).round(6), axis=0)) == 3


def test_a_draw_has_every_class() -> None:
    """Unit 0 alone has class 1: draws without it are drawn again."""
    units_U = np.repeat(np.arange(4), 10)
    targets_U = (units_U == 0).astype(int)
    x_UD = np.random.default_rng(0).normal(0, 1, (40, 3)) + targets_U[:, None]
    assert all(len(model[-1].classes_) == 2 for model in refit(logistic, 0.1, (x_UD, targets_U), units_U, seed=0))


def test_one_unit_is_drawn_by_utterance() -> None:
    targets_U = np.tile(np.arange(2), 20)
    x_UD = np.random.default_rng(0).normal(0, 1, (40, 3)) + targets_U[:, None]
    models = refit(logistic, 0.1, (x_UD, targets_U), np.zeros(40), seed=0)
    assert len(np.unique(np.array([model[-1].coef_[0] for model in models]), axis=0)) == AGAIN


def test_the_repeats_are_the_noise_of_the_row_and_not_its_score() -> None:
    def job(predicted: int) -> LinearResult:
        again = np.full((AGAIN, 3), 1 - predicted)
        return LinearResult(
            parameters=1, seconds=0, test=results.Tested(np.full(3, predicted), {}), strength=1, valid={}, again=again
        )

    row = pooled([[job(0), job(1)]])
    assert row.rows_SN.tolist() == [[0, 0, 0, 1, 1, 1]]
    assert row.folds_N.tolist() == [0, 0, 0, 1, 1, 1]
    assert row.again_RN is not None
    assert row.again_RN.tolist() == [[1, 1, 1, 0, 0, 0]] * AGAIN
    assert row.seeds == 1
