"""The linear row of a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bas.blocks import MeanPool
from bas.errors import UserError
from bas.networks.linear import LinearModel
from bas.networks.network import varying
from bas.protocols import Fold
from bas.runs.session import Session
from bas.stats import Metric
from bas.tasks import Linear

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Candidates for the inverse regularisation of the linear row; the best on held-out utterances is chosen."""

AGAIN = 5
TRIES = 100


Pair = tuple[np.ndarray, np.ndarray]
"""What a linear model sees of utterances, such as mean frames `(U, D)`, and their targets."""

Sees = Callable[[Fold, tuple[str, ...]], Pair]
"""Of these utterances, as the rows of a fold see them."""


@dataclass(frozen=True)
class LinearRow:
    """A linear model as a table's row has it.

    splits: on which its strength was chosen. parts: it is fitted on their fit part, which is `training`.
    """

    linear: Linear
    sees: Sees
    model: Any
    strength: float
    splits: Sequence[tuple[Pair, Pair]]
    parts: Fold
    training: Pair
    seconds: float


def fit_linear_row(session: Session, row: str, fold: int) -> LinearRow:
    """The task's linear row of this name in a fold of a run, on mean frames; see `fit_row`."""
    return fit_row(session, session.run.linears[row], fold, partial(means, session, fold))


def fit_row(
    session: Session, linear: Linear, fold: int, sees: Sees, strengths: Sequence[float] = STRENGTHS
) -> LinearRow:
    """A linear model as a row in a fold of a run; the test part is not used.

    Its strength is chosen as the other rows stop: on the valid part, or where they are committees on inner folds. Where
    they train on both parts in the end (committees, the setting `refit`), it is then fitted on both. Raises UserError
    where every inner fold trains on one class alone.
    """
    run, parts = session.run, session.run.protocol.folds[fold]
    settings, begun = run.plan.settings, time.monotonic()
    inner = session.inner_folds(fold, settings.committee) if settings.committee > 1 else []
    splits = [(sees(p, p.fit), sees(p, p.valid)) for p in inner or [parts]]
    if inner or settings.refit:
        parts = parts.joined()
        if inner and run.task.classes is not None:
            splits = [split for split in splits if len(np.unique(split[0][1])) > 1]
            if not splits:
                why = f"in fold {fold} every inner fold trains on one {run.task.classes} alone"
                raise UserError(f"setting committee={settings.committee}: {why}; give committee=1, or more speakers")
    strength = choose_strength(linear, run.metrics[run.headline], splits, strengths)
    training = sees(parts, parts.fit)
    model = make(linear, strength).fit(*training)
    return LinearRow(linear, sees, model, strength, splits, parts, training, time.monotonic() - begun)


def means(session: Session, fold: int, parts: Fold, ids: tuple[str, ...]) -> Pair:
    """Mean frames: what the task's linear rows see."""
    members, run = session.members(ids), session.run
    data = session.derived(session.layer(fold), parts, run.plan.settings)
    return data.mean_frames(members).numpy(), run.targets[members.numpy()]


def fit_linear(linear: Linear, metric: Metric, fit: Pair, valid: Pair) -> tuple[Any, float]:
    """A task's linear model fitted on `fit`, and its inverse regularisation, the best of STRENGTHS on `valid`."""
    strength = choose_strength(linear, metric, [(fit, valid)])
    return make(linear, strength).fit(*fit), strength


def choose_strength(
    linear: Linear, metric: Metric, splits: Sequence[tuple[Pair, Pair]], strengths: Sequence[float] = STRENGTHS
) -> float:
    """The inverse regularisation with the best mean of the metric on the held-out halves of the splits.

    Ties go to the strongest regularisation.
    """

    def score(strength: float) -> float:
        models = [make(linear, strength).fit(*fit) for fit, _ in splits]
        return float(np.mean([metric(y, m.predict(x)) for m, (_, (x, y)) in zip(models, splits, strict=True)]))

    return max(strengths, key=lambda strength: (score(strength), -strength))


def make(linear: Linear, strength: float) -> Any:
    """A linear model behind a standardisation."""
    return make_pipeline(_Standardise(), linear(strength))


class _Standardise(StandardScaler):  # type: ignore[misc]  # scikit-learn has no types
    """Of what varies (`network.varying`): else rounding would be scaled to 1, and the first change to millions."""

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> _Standardise:
        super().fit(X)
        std_D, size_D = np.sqrt(self.var_), np.sqrt(self.var_ + self.mean_**2)
        flat_D = (varying(*map(torch.from_numpy, (std_D, size_D))) == 0).numpy()
        self.scale_: np.ndarray = np.where(flat_D, 1.0, self.scale_)
        return self


def as_network(model: Any, outputs: int) -> LinearModel | None:
    """A fitted model of `make` as a network on frames; None for an estimator whose weights are not known here.

    Of logistic regression the outputs are logits, of a regression what it predicts. A class without an utterance in
    training is less likely than one with one.
    """
    scaler, estimator = model[0], model[-1]
    dim = len(scaler.mean_)
    weight_OD, bias_O = np.zeros((outputs, dim)), np.zeros(outputs)
    if isinstance(estimator, LogisticRegression):
        classes, coef, intercept = estimator.classes_, estimator.coef_, estimator.intercept_
        if len(classes) == 2:  # one row, for the second class
            coef, intercept = np.vstack([0 * coef, coef]), np.array([0.0, intercept[0]])
        bias_O[:] = intercept.min() - np.log(scaler.n_samples_seen_)
        weight_OD[classes], bias_O[classes] = coef, intercept
    elif isinstance(estimator, Ridge):
        weight_OD[:], bias_O[:] = estimator.coef_, estimator.intercept_
    elif isinstance(estimator, DummyRegressor):
        bias_O[:] = estimator.constant_
    else:
        return None
    network = LinearModel(MeanPool.summary, dim, outputs)
    network.standardise.set(torch.from_numpy(scaler.mean_).float(), torch.from_numpy(scaler.scale_).float())
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(weight_OD))
        network.head.bias.copy_(torch.from_numpy(bias_O))
    return network.eval()


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
