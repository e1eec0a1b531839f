"""Probabilities that say what they are worth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from bas.stats.calibration import Calibrated, calibration_error, cross_fitted, temperature


def drawn(seed: int, count: int, heat: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `heat` times as large as those by which the classes are drawn."""
    rng = np.random.default_rng(seed)
    true_NO = 2 * rng.standard_normal((count, 3))
    targets_N = np.array([rng.choice(3, p=p) for p in softmax(true_NO, axis=1)])
    return heat * true_NO, targets_N


@pytest.mark.parametrize("heat", [0.25, 1.0, 4.0])
def test_the_temperature_is_the_factor_by_which_logits_are_off(heat: float) -> None:
    logits_NO, targets_N = drawn(0, 20_000, heat)
    assert temperature(logits_NO, targets_N) == pytest.approx(heat, rel=0.03)


def test_the_temperature_has_the_lowest_log_loss() -> None:
    logits_NO, targets_N = drawn(1, 300, 3.0)

    def loss(heat: float) -> float:
        return -float(log_softmax(logits_NO / heat, axis=1)[np.arange(300), targets_N].mean())

    best = temperature(logits_NO, targets_N)
    assert loss(best) < min(loss(0.98 * best), loss(1.02 * best))


def test_the_error_is_how_far_confidence_is_from_the_share_that_is_right() -> None:
    sure_NO = np.tile([0.9, 0.1], (10, 1))
    assert calibration_error(sure_NO, np.array([0] * 6 + [1] * 4)) == pytest.approx(0.3)
    assert calibration_error(sure_NO, np.array([0] * 9 + [1])) == pytest.approx(0)
    mixed_NO = np.vstack([sure_NO, np.tile([0.45, 0.55], (10, 1))])
    of_both = np.array([0] * 6 + [1] * 4 + [1] * 10)
    assert calibration_error(mixed_NO, of_both) == pytest.approx((0.3 + 0.45) / 2), "bins do not cancel"
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0, "the highest bin has its upper end"
    logits_NO, targets_N = drawn(2, 20_000, 1.0)
    assert calibration_error(np.asarray(softmax(logits_NO, axis=1)), targets_N) < 0.01


def test_each_fold_takes_the_temperature_of_the_others() -> None:
    hot, cold = drawn(3, 4000, 5.0), drawn(4, 4000, 1.0)
    logits_NO, targets_N = np.vstack([hot[0], cold[0]]), np.concatenate([hot[1], cold[1]])
    folds_N = np.repeat([0, 1], 4000)
    found_NO = cross_fitted(logits_NO, targets_N, folds_N)
    assert found_NO[:4000] == pytest.approx(softmax(hot[0] / temperature(*cold), axis=1))
    assert found_NO[4000:] == pytest.approx(softmax(cold[0] / temperature(*hot), axis=1))


def test_the_log_loss_of_a_certain_mistake_is_finite() -> None:
    assert Calibrated.of(np.array([[1.0, 0.0]]), np.array([1])).loss == pytest.approx(708.4, abs=0.1)
