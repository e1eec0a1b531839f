"""Statistics of shares: how well real numbers are predicted within each part, and how well they could be.

Targets are `(N, O)` of one part, or `(N, O + 1)` of several with the part's number last. Each fold has its own model,
and a correlation across folds would measure the offsets between models. (Pooled, predicting each fold's training mean
would correlate negatively: a fold with high values has a training part with low ones.)

Axes: N utterances, O outputs (emotions), B of a batch, S seeds.

References
    Spearman, *American Journal of Psychology* 15(1):72, 1904; ties take the mean of their ranks.
    Lin, *Biometrics* 45(1):255, 1989: the concordance correlation coefficient.
    Kleinman, *JASA* 68(341):46, 1973: moments of the beta-binomial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from bas.stats.metrics import ANY, CORRELATION, Metric, limited

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Takes targets and predictions `(N, O)`, gives one number for each output, `(O,)`; larger is better."""

DRAWS = 500
Array = TypeVar("Array", np.ndarray, Tensor)
FLAT = 1e-9  # A deviation below this is rounding: the values are all the same.


@limited(CORRELATION)
def pearson(targets_NO: np.ndarray, predictions_NO: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each output, `(O,)`; 0 where targets or predictions are constant."""
    t_NO, p_NO = (x - x.mean(0) for x in (targets_NO.astype(float), predictions_NO.astype(float)))
    t_O, p_O = np.sqrt((t_NO**2).mean(0)), np.sqrt((p_NO**2).mean(0))
    flat_O = (t_O < FLAT) | (p_O < FLAT)
    correlation_O: np.ndarray = np.where(flat_O, 0.0, (t_NO * p_NO).mean(0) / np.where(flat_O, 1.0, t_O * p_O))
    return correlation_O


@limited(CORRELATION)
def spearman(targets_NO: np.ndarray, predictions_NO: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each output, `(O,)`; 0 where targets or predictions are constant."""
    return pearson(_ranks(targets_NO), _ranks(predictions_NO))


def _ranks(x_NO: np.ndarray) -> np.ndarray:
    """The ranks within each column, from 0; ties take their mean. SciPy's `rankdata` minus one, in a tenth of the time.

    A randomisation test calls it hundreds of thousands of times.
    """
    ranks_NO = np.empty(x_NO.shape)
    for rank_N, x_N in zip(ranks_NO.T, x_NO.T, strict=True):
        sorted_N = np.sort(x_N)
        rank_N[:] = (sorted_N.searchsorted(x_N, "left") + sorted_N.searchsorted(x_N, "right") - 1) / 2
    return ranks_NO


@limited((-math.inf, 1.0))
def closeness(targets_NO: np.ndarray, predictions_NO: np.ndarray) -> np.ndarray:
    """1 - the mean absolute error of each output, `(O,)`; for shares, 0 to 1."""
    closeness_O: np.ndarray = 1 - np.abs(targets_NO.astype(float) - predictions_NO).mean(0)
    return closeness_O


def within(statistic: Statistic, output: int | None = None) -> Metric:
    """The metric that averages a statistic over the parts, weighted by their utterances, and has its limits.

    output: the index of one output; None: the mean over all outputs.
    """

    @limited(getattr(statistic, "limits", ANY))
    def metric(targets: np.ndarray, predictions_NO: np.ndarray) -> float:
        assert len(targets) == len(predictions_NO) > 0, (targets.shape, predictions_NO.shape)
        wanted = slice(None) if output is None else slice(output, output + 1)
        parts = _parts(targets, predictions_NO)
        sums = [len(t_NO) * statistic(t_NO[:, wanted], p_NO[:, wanted]).mean() for t_NO, p_NO in parts]
        return float(sum(sums) / len(targets))

    return metric


def _parts(targets: np.ndarray, predictions_NO: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Targets `(N, O)` and predictions of each part."""
    outputs = predictions_NO.shape[1]
    assert targets.shape[1] in (outputs, outputs + 1), (targets.shape, predictions_NO.shape)
    if targets.shape[1] == outputs:
        yield targets, predictions_NO
        return
    part_N = targets[:, outputs]
    for part in np.unique(part_N):
        of_part_N = part_N == part
        yield targets[of_part_N, :outputs], predictions_NO[of_part_N]


def constant(outputs: Sequence[str], targets: np.ndarray, predictions_SN: np.ndarray) -> tuple[str, ...]:
    """A line for each output whose prediction is constant within some part; predictions are `(S, N, O)`."""
    flat_O, parts = np.zeros(len(outputs), int), 0
    for predictions_NO in predictions_SN:
        for _, p_NO in _parts(targets, predictions_NO):
            parts += 1
            flat_O += p_NO.astype(float).std(0) < FLAT
    return tuple(
        f"the prediction of {name} is constant in {count} of {parts} test parts; a correlation is taken as 0 there"
        for name, count in zip(outputs, flat_O.tolist(), strict=True)
        if count
    )


@limited(CORRELATION)
def ccc(targets_NO: np.ndarray, predictions_NO: np.ndarray) -> np.ndarray:
    """Lin's concordance of each output, `(O,)`; 0 where targets or predictions are constant."""
    both_O, spread_O = _agreement(predictions_NO.astype(float), targets_NO.astype(float))
    flat_O = (predictions_NO.std(0) < FLAT) | (targets_NO.std(0) < FLAT)
    concordance_O: np.ndarray = np.where(flat_O, 0.0, both_O / np.where(flat_O, 1.0, spread_O))
    return concordance_O


def concordance(predicted_BO: Tensor, targets_BO: Tensor) -> Tensor:
    """Lin's concordance of each output over a batch, `(O,)`; 0 where both are constant."""
    both_O, spread_O = _agreement(predicted_BO, targets_BO)
    return both_O / spread_O.clamp_min(1e-8)


def _agreement(predicted_BO: Array, targets_BO: Array) -> tuple[Array, Array]:
    """Numerator and denominator of Lin's concordance (1989, eq. 1), `(O,)`: twice the covariance, and the spread."""
    p_BO, t_BO = predicted_BO - predicted_BO.mean(0), targets_BO - targets_BO.mean(0)
    apart_O = (predicted_BO.mean(0) - targets_BO.mean(0)) ** 2
    return 2 * (p_BO * t_BO).mean(0), (p_BO**2).mean(0) + (t_BO**2).mean(0) + apart_O


@dataclass(frozen=True)
class Ceiling:
    """By metric, the score of a model that knows every true share: mean and 95 % range over DRAWS simulations."""

    metrics: Mapping[str, tuple[float, float, float]]
    raters: float  # mean over the utterances


def ceiling(targets: np.ndarray, raters_N: np.ndarray, metrics: Mapping[str, Metric], seed: int = 0) -> Ceiling:
    """The best scores possible with so few listeners, whose shares are binomial draws around the true shares.

    The true shares of an emotion are assumed to be beta-distributed, fitted by moments (Kleinman 1973). A simulation
    draws each utterance's true share given its votes, then new votes from that share. The metrics compare a model that
    knows the true shares with the new votes.

    raters_N: listeners of each utterance. targets: see the module.
    """
    outputs = targets.shape[1] - 1
    shares_NO, n_N1 = targets[:, :outputs].astype(float), raters_N[:, None]
    mean_O = shares_NO.mean(0).clip(1e-3, 1 - 1e-3)
    noise = float((1 / raters_N).mean())
    # Var of a share of n votes: mean (1 - mean) (1 / n + (1 - 1 / n) rho).
    rho_O = (shares_NO.var(0) / (mean_O * (1 - mean_O)) - noise) / max(1 - noise, 1e-3)
    size_O = 1 / rho_O.clip(1e-3, 1 - 1e-3) - 1
    votes_NO = np.rint(shares_NO * n_N1)
    alpha_NO, beta_NO = mean_O * size_O + votes_NO, (1 - mean_O) * size_O + n_N1 - votes_NO
    rng = np.random.default_rng(seed)
    scores: dict[str, list[float]] = {name: [] for name in metrics}
    for _ in range(DRAWS):
        true_NO = rng.beta(alpha_NO, beta_NO)
        again = np.column_stack([rng.binomial(n_N1, true_NO) / n_N1, targets[:, outputs]])
        for name, metric in metrics.items():
            scores[name].append(metric(again, true_NO))
    reached = {}
    for name, values in scores.items():
        low, high = np.quantile(values, (0.025, 0.975)).tolist()
        reached[name] = float(np.mean(values)), low, high
    return Ceiling(reached, float(raters_N.mean()))
