"""The support vector regression of recordings: scikit-learn's own, and what has no value."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.svm import SVR

from bas.runs.linear import make
from bas.studies.shares.acoustic import COMPLEXITIES, EPSILON, SupportVectors

RNG = np.random.default_rng(0)
X_UF = RNG.standard_normal((60, 200)) * np.linspace(0.1, 30, 200) + 5
Y_UO = np.column_stack([1 / (1 + np.exp(-(X_UF[:, -1] - 5) / 30)), RNG.uniform(size=60)])


@pytest.mark.parametrize("strength", COMPLEXITIES)
def test_each_output_is_a_linear_support_vector_regression(strength: float) -> None:
    x_UF = (X_UF - X_UF.mean(0)) / X_UF.std(0)
    found_UO = SupportVectors(strength).fit(x_UF[:40], Y_UO[:40]).predict(x_UF[40:])
    for found_U, targets_U in zip(found_UO.T, Y_UO.T, strict=True):
        svr = SVR(kernel="linear", C=strength, epsilon=EPSILON).fit(x_UF[:40], targets_U[:40])
        np.testing.assert_allclose(found_U, svr.predict(x_UF[40:]), atol=1e-6)


def test_what_has_no_value_is_the_fit_parts_mean() -> None:
    """As of an utterance too short for openSMILE, in training or later."""
    holes_UF = X_UF.copy()
    holes_UF[[3, 50]] = np.nan
    model = make(SupportVectors, 0.01).fit(holes_UF[:40], Y_UO[:40])
    predicted_UO = model.predict(holes_UF[40:])
    assert np.isfinite(predicted_UO).all()
    np.testing.assert_allclose(predicted_UO[10], model.predict(np.nanmean(holes_UF[:40], 0)[None])[0])
    np.testing.assert_allclose(predicted_UO[10], model[-1].intercept_)


def test_rounding_is_no_deviation() -> None:
    """Some functionals are one number in training, but for its last bit, and another in a test part."""
    flat_UF = X_UF.copy()
    flat_UF[:40, 7] = np.where(
        np.arange(40) % 2, np.float32(16.666666), np.nextafter(np.float32(16.666666), np.float32(0))
    )
    flat_UF[40:, 7] = 33.3
    predicted_UO = make(SupportVectors, 0.01).fit(flat_UF[:40], Y_UO[:40]).predict(flat_UF[40:])
    without_UF = np.delete(flat_UF, 7, axis=1)
    expected_UO = make(SupportVectors, 0.01).fit(without_UF[:40], Y_UO[:40]).predict(without_UF[40:])
    np.testing.assert_allclose(predicted_UO, expected_UO, atol=1e-5)
