"""The linear row of a table."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bas.stats import Metric
from bas.tasks import Linear

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Candidates for the inverse regularisation of the linear row; the best on the valid part is chosen."""


def fit_linear(
    linear: Linear, metric: Metric, fit: tuple[np.ndarray, np.ndarray], valid: tuple[np.ndarray, np.ndarray]
) -> tuple[Any, float]:
    """A task's linear model fitted on `fit`, and its inverse regularisation, the best of STRENGTHS on `valid`.

    fit, valid: mean frames `(U, D)`, which are standardised, and their targets. Ties go to the strongest
    regularisation.
    """
    made = {strength: make_pipeline(StandardScaler(), linear(strength)).fit(*fit) for strength in STRENGTHS}
    scores = {strength: metric(valid[1], model.predict(valid[0])) for strength, model in made.items()}
    best_strength = max(STRENGTHS, key=lambda strength: (scores[strength], -strength))
    return made[best_strength], best_strength
