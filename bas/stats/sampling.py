"""The variance of a number in a table: from its units and from its trainings.

Axes: N test utterances pooled over the folds, S seeds, R repeated trainings of a fold, F folds, U independent units
(speakers, sessions, dialogues), C cells (the utterances of one unit in one fold).

A number in a table varies for two reasons: other speakers would have been tested, and another training of the same
model would have predicted otherwise. A training's luck is shared by all the units of its fold, so units alone do not
show it. The variance of an estimate therefore has two parts, which `conclude` adds (Cameron, Gelbach and Miller 2011):

    V = J + U / (U - 1) · max(0, T - I)

J, units: the jackknife over units, with their sizes (Cochran 1977; Efron and Tibshirani 1993).
T, trainings: the sum over folds of the variance of the estimate if all of a row's seeds had, in that fold, the
    predictions of one of them; divided by S, as a row is the mean of S trainings.
I, cells: the same, cell by cell. This part of T is in J already. If each fold tests one unit, T = I.

U / (U - 1) makes V unbiased where all units are of one size, as J measures from the mean of the units at hand.

The interval is Student's t. Its degrees of freedom are Satterthwaite's: J has U - 1, fewer if the units' sizes differ
(`ratio_degrees`); T has R - 1 for each fold. `benchmarks/verdicts.py` measures how often such intervals cover.

References
    Cameron, Gelbach and Miller, *J. Business & Economic Statistics* 29(2):238, 2011: errors clustered in two ways.
    Cochran, *Sampling Techniques*, 3rd ed., Wiley 1977, ch. 6: the ratio estimator over units of unequal size.
    Efron and Tibshirani, *An Introduction to the Bootstrap*, Chapman & Hall 1993, ch. 11: jackknife pseudo-values
        with Student-t.
    Satterthwaite, *Biometrics Bulletin* 2(6):110, 1946: degrees of freedom of a sum of variances.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.stats import t as student_t

from bas.stats.metrics import ANY, Limits

BLOCKS = 400  # If there are more units than this, they are left out in this many random blocks.
LEVEL = 0.95
DRAWS = 40_000
MOST = 4_000_000  # numbers in these draws
TOLERANCE = 1e-12  # Sums of the same terms in another order count as equal.


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a row of a table predicted of the N test utterances.

    rows_SN: class indices `(S, N)`, or `(S, N, ...)` for several numbers an utterance, by seed.
    folds_N: which of a seed's trained models predicted each utterance.
    again_RN: for a row without seeds, as a linear one, what R trainings on resampled training units predicted. They
        measure the noise of its training and are never scored.
    retrained: whether each seed trained everything anew. If not, as for several probes on one fine-tuned encoder, the
        seeds do not show the noise of training.
    """

    rows_SN: np.ndarray
    folds_N: np.ndarray
    again_RN: np.ndarray | None = None
    retrained: bool = True

    def __post_init__(self) -> None:
        n = len(self.folds_N)
        assert self.rows_SN.ndim > 1, self.rows_SN.shape
        assert self.rows_SN.shape[0] > 0, "no seeds"
        assert self.rows_SN.shape[1] == n > 0, (self.rows_SN.shape, n)
        assert self.again_RN is None or self.again_RN.shape[1:] == self.rows_SN.shape[1:], "repeats of another shape"

    @property
    def seeds(self) -> int:
        return len(self.rows_SN)

    @property
    def repeats_RN(self) -> np.ndarray | None:
        """The trainings that show the noise of training; None: there are fewer than two."""
        repeats_RN = self.rows_SN if self.again_RN is None else self.again_RN
        return repeats_RN if self.retrained and len(repeats_RN) > 1 else None


Statistic = Callable[..., "float | np.ndarray"]
"""statistic(kept_N, *rows_SN): a number, or several, from the utterances that a boolean mask keeps and the predictions
of each row. A choice that it makes from them, such as the best of several states, is part of the statistic."""


@dataclass(frozen=True)
class Training:
    """How a statistic varies over the trainings of one row."""

    folds_FR: np.ndarray  # the statistic if all seeds had, in one fold, the predictions of one training
    cells_CR: np.ndarray  # the same for one cell
    sizes_F: np.ndarray  # utterances
    sizes_C: np.ndarray
    models: float  # whose mean the row is: S
    more: bool  # whether more seeds would make this noise smaller

    @property
    def degrees(self) -> float:
        """Of T: R - 1 for each fold, weighted as the folds weigh in T."""
        squares_F = self.sizes_F.astype(float) ** 2
        return float((self.folds_FR.shape[1] - 1) * squares_F.sum() ** 2 / (squares_F**2).sum())

    @property
    def variance(self) -> tuple[float, float]:
        """T and I."""
        t, i = (float(np.var(x, axis=1, ddof=1).sum()) / self.models for x in (self.folds_FR, self.cells_CR))
        return t, i

    @property
    def in_units(self) -> float:
        """How much of T - I, the part that units share, is in J once more, as that of single cells."""
        folds, cells = (float((sizes.astype(float) ** 2).sum()) for sizes in (self.sizes_F, self.sizes_C))
        return cells / (folds - cells) if folds > cells and len(self.sizes_F) > 1 else 0.0


@dataclass(frozen=True)
class Sampled:
    """A statistic, without each unit, and with other trainings: all that `conclude` needs.

    A statistic of A numbers has a last axis A everywhere; `at` then makes one of a weighted sum of them.
    """

    whole: np.ndarray
    without_U: np.ndarray
    sizes_U: np.ndarray  # utterances
    trainings: tuple[Training, ...]  # none where the folds are the units
    by_fold: bool  # the units are the folds, as there was one training a fold

    def minus(self, other: Sampled) -> Sampled:
        """Of the difference between two numbers, of rows that were trained apart."""
        assert np.array_equal(self.sizes_U, other.sizes_U), "other units"
        trainings = (*self.trainings, *other.trainings)
        without_U = self.without_U - other.without_U
        return Sampled(self.whole - other.whole, without_U, self.sizes_U, trainings, self.by_fold)

    def at(self, weights_A: np.ndarray) -> Sampled:
        """Of Σ weight · number, over the numbers whose weight is not 0."""
        used_A = weights_A != 0

        def weigh(x_A: np.ndarray) -> np.ndarray:
            weighed: np.ndarray = x_A[..., used_A] @ weights_A[used_A]
            return weighed

        trainings = (replace(t, folds_FR=weigh(t.folds_FR), cells_CR=weigh(t.cells_CR)) for t in self.trainings)
        return replace(self, whole=weigh(self.whole), without_U=weigh(self.without_U), trainings=tuple(trainings))


@dataclass(frozen=True)
class Conclusion:
    """An estimate with its standard error and interval."""

    value: float
    low: float  # -inf without an interval
    high: float
    p: float  # two-sided, that the number is 0; 1 without an interval
    se: float  # inf without an interval
    degrees: float  # of freedom of Student's t
    units: int  # those left out one at a time: the folds, if `by_fold`
    by_fold: bool
    seeds_se: float  # the part of se that more seeds would make smaller
    level: float = LEVEL


def sample(
    statistic: Statistic, units_N: np.ndarray, rows: Sequence[Predictions], among: Sequence[Predictions] = ()
) -> Sampled:
    """Evaluate a statistic of some rows on all utterances, without each unit, and with other trainings.

    among: these rows and those that the result will be compared with, which then have the same units.

    If a row has one training a fold and no repeats, nothing tells its training noise from its units: then whole folds
    are left out, which shows both. (More exactly, the smallest groups of utterances that share neither unit nor fold.)
    More than BLOCKS units are grouped at random into BLOCKS blocks, which widens the interval only a little (Kott,
    *JOS* 17(4):521, 2001).
    """
    n = len(units_N)
    assert n > 0, "no utterances"
    assert all(len(row.folds_N) == n for row in rows), "rows of other utterances"
    unit_N = _numbered(units_N)
    alone = [row for row in among or rows if row.repeats_RN is None]
    by_fold = False
    for row in alone:
        joined_N = _join(unit_N, _numbered(row.folds_N))
        by_fold = by_fold or bool(joined_N.max() < unit_N.max())
        unit_N = joined_N
    if unit_N.max() >= BLOCKS:
        unit_N = (np.random.default_rng(0).permutation(unit_N.max() + 1) % BLOCKS)[unit_N]
    sizes_U = np.bincount(unit_N)
    everyone_N = np.ones(n, bool)
    arrays = [row.rows_SN for row in rows]

    def value(kept_N: np.ndarray, predictions: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(statistic(kept_N, *predictions), float)

    whole = value(everyone_N, arrays)
    if len(sizes_U) < 2:
        return Sampled(whole, whole[None], sizes_U, (), by_fold)
    without_U = np.array([value(unit_N != u, arrays) for u in range(len(sizes_U))])

    def swapped(row: int, part_N: np.ndarray) -> np.ndarray:
        repeats_RN = rows[row].repeats_RN
        assert repeats_RN is not None
        groups = _numbered(part_N)
        return np.array(
            [
                [
                    value(everyone_N, [*arrays[:row], _put(arrays[row], groups == g, r_N), *arrays[row + 1 :]])
                    for r_N in repeats_RN
                ]
                for g in range(groups.max() + 1)
            ]
        )

    trainings = []
    for index, row in enumerate(rows if not alone else ()):
        fold_N = _numbered(row.folds_N)
        cell_N = _numbered(fold_N * len(sizes_U) + unit_N)
        folds_FR = swapped(index, fold_N)
        cells_CR = folds_FR if cell_N.max() == fold_N.max() else swapped(index, cell_N)
        sizes = np.bincount(fold_N), np.bincount(cell_N)
        trainings.append(Training(folds_FR, cells_CR, *sizes, row.seeds, row.again_RN is None))
    return Sampled(whole, without_U, sizes_U, tuple(trainings), by_fold)


def _numbered(labels_N: np.ndarray) -> np.ndarray:
    """The labels as whole numbers from 0."""
    numbered_N: np.ndarray = np.unique(labels_N, return_inverse=True)[1]
    return numbered_N


def _join(unit_N: np.ndarray, fold_N: np.ndarray) -> np.ndarray:
    """The smallest groups of utterances that share neither a unit nor a fold; both are numbered from 0."""
    units, nodes = unit_N.max() + 1, unit_N.max() + fold_N.max() + 2
    links = coo_matrix((np.ones(len(unit_N)), (unit_N, units + fold_N)), (nodes, nodes))
    return _numbered(connected_components(links, directed=False)[1][unit_N])


def _uncertainty(sampled: Sampled, variances: Sequence[tuple[float, float]], of_units: float, shared: float) -> float:
    """The sum of (variance)² / degrees of freedom over J and what trainings add to it, as Satterthwaite has it.

    The trainings' part of J has the degrees of folds, not of units, since the units of a fold share it.
    """
    of_units_alone = inverse = 1 / ratio_degrees(tuple(sorted(sampled.sizes_U.tolist())))
    uncertain, all_trainings = 0.0, sum(t for t, _ in variances)
    for (t, _), training in zip(variances, sampled.trainings, strict=True):
        part = shared * t / all_trainings if shared else 0.0
        uncertain += part**2 / training.degrees
        if part and of_units and training.in_units:
            share = min(1 / len(variances), part * training.in_units / of_units)
            inverse += share * (1 / ratio_degrees(tuple(sorted(training.sizes_F.tolist()))) - of_units_alone)
    return uncertain + of_units**2 * inverse


@lru_cache(maxsize=4096)
def ratio_degrees(sizes: tuple[int, ...]) -> float:
    """Degrees of freedom of a mean over its jackknife standard error, for units of these sizes, in ascending order.

    Those of the Student's t with the same 97.5 % quantile, if the units' values are normal and independent: U - 1 for
    equal units, fewer for unequal ones, of which the largest decide. The quantile is of random draws from a fixed seed.
    """
    units, share_U = len(sizes), np.array(sizes) / sum(sizes)
    if len(set(sizes)) == 1:
        return units - 1.0
    value_DU = np.random.default_rng(0).standard_normal((min(DRAWS, MOST // units), units))
    mean_D = value_DU @ share_U
    without_DU = (mean_D[:, None] - share_U * value_DU) / (1 - share_U)
    error_D = (units - 1) / math.sqrt(units) * np.std(without_DU, axis=1, ddof=1)
    quantile = float(np.quantile(np.abs(mean_D) / error_D, LEVEL))
    most = student_t.ppf((1 + LEVEL) / 2, units - 1)
    if quantile <= most:
        return units - 1.0
    return float(brentq(lambda degrees: student_t.ppf((1 + LEVEL) / 2, degrees) - quantile, 0.1, units - 1))


def _put(rows_SN: np.ndarray, part_N: np.ndarray, training_N: np.ndarray) -> np.ndarray:
    """The rows, each with the predictions of one training for a part of the utterances."""
    out_SN = rows_SN.copy()
    out_SN[:, part_N] = training_N[part_N]
    return out_SN


def conclude(
    sampled: Sampled, level: float = LEVEL, limits: Limits = ANY, drawn: tuple[float, float] = (0.0, 1.0)
) -> Conclusion:
    """The interval of a number; see the module. None where the number is not finite on a subset. limits: see `clip`.

    drawn: a variance that units and trainings do not show, as of models that were drawn at random, and its degrees.

    If every unit and every training gives the same, there is no spread to judge by. Then p is that of a sign-flip test
    in which all units agree, 2 / 2**U, and there is no interval unless it is below 1 - level.
    """
    assert 0 < level < 1, level
    value, units = float(sampled.whole), len(sampled.sizes_U)

    def concluded(low: float, high: float, p: float, se: float, degrees: float, seeds_se: float = 0.0) -> Conclusion:
        return Conclusion(value, low, high, p, se, degrees, units, sampled.by_fold, seeds_se, level)

    known = [sampled.whole, sampled.without_U, *(x for t in sampled.trainings for x in (t.folds_FR, t.cells_CR))]
    if units < 2 or not all(np.isfinite(x).all() for x in known):
        return concluded(-math.inf, math.inf, 1.0, math.inf, 0.0)
    pseudo_U = units * value - (units - 1) * sampled.without_U
    of_units = float(np.var(pseudo_U, ddof=1)) / units
    variances = [training.variance for training in sampled.trainings]
    of_trainings, of_cells = (sum(parts) for parts in zip(*variances, strict=True)) if variances else (0.0, 0.0)
    shared = units / (units - 1) * max(0.0, of_trainings - of_cells)
    variance = of_units + shared
    if variance + drawn[0] <= TOLERANCE**2:
        p = 2.0 ** (1 - units) if abs(value) > TOLERANCE else 1.0
        if 1 - level < p < 1:
            return concluded(-math.inf, math.inf, p, math.inf, 0.0)
        if p == 1:  # nothing but the last bits: the interval holds 0
            return concluded(min(value, 0.0), max(value, 0.0), p, 0.0, units - 1.0)
        return concluded(value, value, p, 0.0, units - 1.0)
    uncertain = _uncertainty(sampled, variances, of_units, shared) + drawn[0] ** 2 / drawn[1]
    variance += drawn[0]
    degrees, se = variance**2 / uncertain, math.sqrt(variance)
    half_width = float(student_t.ppf((1 + level) / 2, degrees)) * se
    p = float(2 * student_t.sf(abs(value) / se, degrees))
    of_seeds = sum(t for (t, _), training in zip(variances, sampled.trainings, strict=True) if training.more)
    low, high = clip(value - half_width, value + half_width, limits)
    return concluded(low, high, p, se, degrees, math.sqrt(min(of_seeds, variance)))


def clip(low: float, high: float, limits: Limits) -> tuple[float, float]:
    """The ends of an interval, within what the number can be.

    Near the largest accuracy a symmetric interval reaches beyond 1. What is cut off holds no possible value, so the
    interval covers as often as before, and excludes 0 as before.
    """
    return max(low, limits[0]), min(high, limits[1])
