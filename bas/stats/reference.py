"""What stands for a space in an audit: all its architectures, or a uniform sample, and the variance that this adds.

Axes: A architectures, the sample before all others, F folds, S seeds, D draws of picks, R = F x S searches.

References
    Agresti and Coull, *The American Statistician* 52(2):119, 1998: two more successes and failures for an interval.
    Bonett and Price, *J. Educ. Behav. Stat.* 37(4):479, 2012: the same for the difference of two shares in one sample.
    Cochran, *Sampling Techniques*, 3rd ed., Wiley 1977, ch. 2: a mean over draws without replacement.
    Hoeffding, *Ann. Math. Statist.* 19(3):293, 1948: the variance of Kendall's tau, a mean over pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from bas.stats.intervals import Estimate
from bas.stats.metrics import ANY, Limits
from bas.stats.sampling import LEVEL, clip

DIGITS = 12  # Means of the same terms in another order differ in the last bits: rounding keeps their ties.

Drawn = tuple[float, float]
"""What a draw of architectures adds: a variance, and its degrees of freedom."""

NOTHING_DRAWN: Drawn = (0.0, 1.0)


@dataclass(frozen=True)
class Reference:
    """What stands for a space: so many architectures, the first of an axis, drawn uniformly from `size`, or all.

    Whatever comes after them on the axis was chosen by a search: it is judged, and never counted.
    """

    drawn: int
    size: int

    @classmethod
    def all_of(cls, size: int) -> Reference:
        return cls(size, size)

    def variance(self, values_A: np.ndarray) -> Drawn:
        """Of the mean of a value of the drawn ones, over other draws without replacement; 0 where all are there."""
        left = 1 - self.drawn / self.size
        return left * float(np.var(values_A, ddof=1)) / len(values_A) if left else 0.0, self.drawn - 1.0

    def mean(self, accuracy_AS: np.ndarray, limits: Limits = ANY) -> Estimate:
        """The mean accuracy, with its interval for other draws: their architectures and the noise of their training.

        limits: of the metric.
        """
        mean_A = accuracy_AS[: self.drawn].mean(1)
        variance, degrees = self.variance(mean_A)
        value = float(mean_A.mean())
        half_width = float(student_t.ppf((1 + LEVEL) / 2, degrees)) * variance**0.5
        return Estimate(value, *clip(value - half_width, value + half_width, limits))

    @property
    def best(self) -> float:
        """The best of the sample is among this best share of a large space, with a probability of LEVEL."""
        return 1 - float((1 - LEVEL) ** (1 / self.drawn))

    def of_percentile(self, accuracy_AS: np.ndarray, picks_DFS: np.ndarray) -> Drawn:
        """Of a mean percentile: the mean, over the sample, of the share of picks that beat an architecture.

        As if two more were beaten by all picks and two by none (Agresti and Coull 1998): a pick that beats all that
        were drawn need not beat all of the space.
        """
        return self.variance(np.append(self._beaten_by(accuracy_AS, picks_DFS), [0, 0, 1, 1]))

    def of_difference(self, accuracy_AS: np.ndarray, ours_DFS: np.ndarray, theirs_DFS: np.ndarray) -> Drawn:
        """Of the difference of two mean percentiles, in the same sample.

        As if two more were beaten, one by all of ours alone and one by all of theirs alone (Bonett and Price 2012).
        """
        ahead_A = self._beaten_by(accuracy_AS, ours_DFS) - self._beaten_by(accuracy_AS, theirs_DFS)
        return self.variance(np.append(ahead_A, [1, -1]))

    def of_tau(self, accuracy_AS: np.ndarray, scores_FSA: np.ndarray) -> Drawn:
        """Of a mean tau: four times that of an architecture's agreement with the others (Hoeffding 1948)."""
        truth_A, agreement_A = accuracy_AS[: self.drawn].mean(1).round(DIGITS), np.zeros(self.drawn)
        order_AA = np.sign(truth_A[:, None] - truth_A)
        scores_RA = scores_FSA.reshape(-1, self.drawn).round(DIGITS)
        for scores_A in scores_RA:
            agreement_A += (np.sign(scores_A[:, None] - scores_A) * order_AA).sum(1) / (self.drawn - 1) / len(scores_RA)
        variance, degrees = self.variance(agreement_A)
        return 4 * variance, degrees

    def _beaten_by(self, accuracy_AS: np.ndarray, picks_DFS: np.ndarray) -> np.ndarray:
        """By architecture of the sample, the share of the picks that beat it."""
        each_DA = [beaten(accuracy_AS, picks_FS, self.drawn).mean((0, 1)) for picks_FS in picks_DFS]
        return np.asarray(np.mean(each_DA, axis=0))


def beaten(accuracy_AS: np.ndarray, picks_FS: np.ndarray, drawn: int) -> np.ndarray:
    """`(F, S, drawn)`: 1 where a pick beats one of the first architectures, a half for a tie, 0 against itself."""
    assert accuracy_AS.shape[1] == picks_FS.shape[1] > 1, (accuracy_AS.shape, picks_FS.shape)
    beaten_FSA = np.empty((*picks_FS.shape, drawn))
    for s in range(picks_FS.shape[1]):
        others_A = np.delete(accuracy_AS, s, axis=1).mean(1)
        gap_FA = others_A[picks_FS[:, s], None] - others_A[:drawn]
        beaten_FSA[:, s] = (1 + np.sign(gap_FA.round(DIGITS))) / 2
        itself = picks_FS[:, s, None] == np.arange(drawn)
        beaten_FSA[:, s][itself] = 0
    return beaten_FSA
