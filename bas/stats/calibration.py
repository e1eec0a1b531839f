"""Do probabilities mean what they say? A temperature for logits, and the expected calibration error.

Axes: S seeds, N utterances, O classes.

References
    Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017: temperature scaling; the error in equal bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BINS = 15  # as Guo et al.
FARTHEST = 50.0  # by which a temperature divides or multiplies at most


@dataclass(frozen=True)
class Calibrated:
    """How good probabilities are: their log loss (nats), and the expected calibration error, 0..1."""

    loss: float
    error: float

    @classmethod
    def of(cls, probabilities_NO: np.ndarray, targets_N: np.ndarray) -> Calibrated:
        of_truth_N = probabilities_NO[np.arange(len(targets_N)), targets_N]
        loss = -float(np.log(np.maximum(of_truth_N, np.finfo(float).tiny)).mean())
        return cls(loss, calibration_error(probabilities_NO, targets_N))


def before_and_after(
    logits_SNO: np.ndarray, targets_N: np.ndarray, folds_N: np.ndarray
) -> tuple[Calibrated, Calibrated | None]:
    """A row's probabilities with all its seeds: as they are, and with temperatures fitted on the other folds.

    None with a single fold.
    """
    seeds, _, classes = logits_SNO.shape
    logits, targets, folds = logits_SNO.reshape(-1, classes), np.tile(targets_N, seeds), np.tile(folds_N, seeds)
    before = Calibrated.of(np.asarray(softmax(logits, axis=1)), targets)
    several = len(np.unique(folds_N)) > 1
    return before, Calibrated.of(cross_fitted(logits, targets, folds), targets) if several else None


def temperature(logits_NO: np.ndarray, targets_N: np.ndarray) -> float:
    """The number by which logits are divided so that the log loss of these utterances is lowest."""
    index_N = np.arange(len(targets_N))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits_NO / np.exp(log_temperature), axis=1)[index_N, targets_N].mean())

    limit = float(np.log(FARTHEST))
    found = minimize_scalar(loss, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def calibration_error(probabilities_NO: np.ndarray, targets_N: np.ndarray) -> float:
    """The expected calibration error, 0..1: over BINS equal bins of the highest probability, how far its mean in a bin
    is from the share of utterances there that are right, weighted by their number."""
    gaps = [count * abs(sure - right) for sure, right, count in bins(probabilities_NO, targets_N)]
    return sum(gaps) / len(targets_N)


def bins(probabilities_NO: np.ndarray, targets_N: np.ndarray) -> list[tuple[float, float, int]]:
    """Of each of BINS equal bins of the highest probability that has utterances: its mean there, the share of them that
    are right, and their number."""
    highest_N, right_N = probabilities_NO.max(1), probabilities_NO.argmax(1) == targets_N
    bin_N = np.minimum((highest_N * BINS).astype(int), BINS - 1)
    parts = [bin_N == b for b in np.unique(bin_N)]
    return [(float(highest_N[of].mean()), float(right_N[of].mean()), int(of.sum())) for of in parts]


def cross_fitted(logits_NO: np.ndarray, targets_N: np.ndarray, folds_N: np.ndarray) -> np.ndarray:
    """Probabilities `(N, O)`, those of each fold with the temperature that suits the others; it takes several folds."""
    scaled_NO = np.empty_like(logits_NO, dtype=float)
    for fold in np.unique(folds_N):
        here_N = folds_N == fold
        scaled_NO[here_N] = logits_NO[here_N] / temperature(logits_NO[~here_N], targets_N[~here_N])
    return np.asarray(softmax(scaled_NO, axis=1))
