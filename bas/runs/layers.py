"""Choose the stored state to read from training utterances alone, for `layer=best` and for few labels.

A linear model on standardised mean frames is cross-validated over whole units of the field that the task keeps
disjoint: all training speakers count, while a valid part has two or three. (On EmoDB, a choice on the valid part cost
three points against this; a figure of `layer=best` on EmoDB is not free of that comparison.)

Axes: U training utterances, L states, D width of one.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bas.errors import UserError
from bas.runs import inner
from bas.runs.losses import weighted
from bas.stats import Metric
from bas.tasks import Task, join_parts
from bas.training.settings import ClassWeights

FOLDS = 5
STRENGTH = 0.03
"""Inverse regularisation, fixed: few labels leave none to choose it on."""


def middle(states: Sequence[int]) -> int:
    """The middle state, the choice without any label."""
    return states[len(states) // 2]


def cross_validate(
    x_ULD: np.ndarray,
    targets_U: np.ndarray,
    units_U: np.ndarray,
    states: Sequence[int],
    task: Task,
    metric: Metric,
    class_weights: ClassWeights = "none",
) -> dict[int, float]:
    """Each state's score on utterances whose unit its model has not seen, pooled over the folds.

    targets_U: classes, or shares `(U, O)`. units_U: no two folds share a unit; with a single unit, folds are over
    utterances.
    Raises UserError if no fold has two different targets to train on.
    """
    every = inner.split(targets_U, units_U, FOLDS, task.classes is not None)
    # A fold with a single class has nothing to learn.
    splits = [(fit, held) for fit, held in every if len(np.unique(targets_U[fit], axis=0)) > 1]
    if not splits:
        unit = task.disjoint[0] if task.disjoint else "utterance"
        kind = "value" if task.classes is None else "class"
        raise UserError(f"the best layer cannot be estimated: each training {unit} is of one {kind}")
    linear = weighted(next(iter(task.linears.values())), class_weights)
    held_U = np.concatenate([held for _, held in splits])
    parts_U = np.repeat(np.arange(len(splits)), [len(held) for _, held in splits])
    targets = join_parts(task, targets_U[held_U], parts_U)
    scores = {}
    for index, state in enumerate(states):
        predicted = []
        for fit, held in splits:
            model = make_pipeline(StandardScaler(), linear(STRENGTH))
            with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # at the limit of its precision
                model.fit(x_ULD[fit, index], targets_U[fit])
            predicted.append(model.predict(x_ULD[held, index]))
        scores[state] = metric(targets, np.concatenate(predicted))
    return scores


def best(scores: dict[int, float]) -> int:
    """The state with the best score; ties go to the one nearest to the middle, then to the lower."""
    centre = middle(list(scores))
    return max(scores, key=lambda state: (scores[state], -abs(state - centre), -state))
