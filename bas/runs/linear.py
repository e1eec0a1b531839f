"""The linear row of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bas.stats import Metric
from bas.tasks import Linear

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Candidates for the inverse regularisation of the linear row; the best on held-out utterances is chosen."""

AGAIN = 5
TRIES = 100


Pair = tuple[np.ndarray, np.ndarray]
"""Mean frames `(U, D)`, and their targets."""


def fit_linear(linear: Linear, metric: Metric, fit: Pair, valid: Pair) -> tuple[Any, float]:
    """A task's linear model fitted on `fit`, and its inverse regularisation, the best of STRENGTHS on `valid`."""
    strength = choose_strength(linear, metric, [(fit, valid)])
    return make(linear, strength).fit(*fit), strength


def choose_strength(linear: Linear, metric: Metric, splits: Sequence[tuple[Pair, Pair]]) -> float:
    """The inverse regularisation with the best mean of the metric on the held-out halves of the splits.

    Ties go to the strongest regularisation.
    """

    def score(strength: float) -> float:
        models = [make(linear, strength).fit(*fit) for fit, _ in splits]
        return float(np.mean([metric(y, m.predict(x)) for m, (_, (x, y)) in zip(models, splits, strict=True)]))

    return max(STRENGTHS, key=lambda strength: (score(strength), -strength))


def make(linear: Linear, strength: float) -> Any:
    """The task's linear model behind a standardisation."""
    return make_pipeline(StandardScaler(), linear(strength))


def refit(
    linear: Linear, strength: float, fit: tuple[np.ndarray, np.ndarray], units_U: np.ndarray, seed: int
) -> list[Any]:
    """The model fitted again on AGAIN other draws of the training units, with replacement, at the same strength.

    They are never scored: how their predictions vary shows how much a row without seeds owes to the speakers that it
    was trained on (Efron and Tibshirani 1993, ch. 6). A single unit is drawn by utterance. A draw that lacks a class
    is drawn again; after TRIES, as where one unit alone has a class, all utterances stand in for it.
    """
    x_UD, targets_U = fit
    rng = np.random.default_rng(seed)
    names, unit_U = np.unique(units_U, return_inverse=True)
    if len(names) == 1:
        unit_U = np.arange(len(x_UD))
    members = [np.flatnonzero(unit_U == unit) for unit in range(unit_U.max() + 1)]

    def draw() -> np.ndarray:
        for _ in range(TRIES):
            drawn_U = np.concatenate([members[unit] for unit in rng.integers(0, len(members), len(members))])
            if targets_U.ndim > 1 or len(np.unique(targets_U[drawn_U])) == len(np.unique(targets_U)):
                return drawn_U
        return np.arange(len(x_UD))

    draws = [draw() for _ in range(AGAIN)]
    return [make(linear, strength).fit(x_UD[u], targets_U[u]) for u in draws]
