"""Intervals, paired comparisons and their verdicts; see `metrics` for the metrics.

Axes: N test utterances pooled over the folds, S seeds, U independent units (speakers, sessions, dialogues).

References
    Cochran, *Sampling Techniques*, 3rd ed., Wiley 1977, ch. 6: the ratio estimator over units of unequal size.
    Efron and Tibshirani, *An Introduction to the Bootstrap*, Chapman & Hall 1993, ch. 11: jackknife pseudo-values
        with Student-t; ch. 13: the percentile interval; ch. 15: permutation tests.
    Phipson and Smyth, *Stat. Appl. Genet. Mol. Biol.* 9(1):39, 2010: (1 + count) / (1 + B) for drawn patterns.
    Yeh, *COLING* 2000: randomisation tests for F-scores by swapping the two systems' answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy.stats import t as student_t

from bas.stats.metrics import ANY, Limits, Metric, limits_of_difference

Verdict = Literal["better", "worse", "tie", "no claim"]

MIN_UNITS = 6  # The smallest two-sided sign-flip p is 2 / 2**U: 0.0625 with five units, 0.03125 with six.
EXACT_UNITS = 12  # Up to this many units, every sign pattern is tried: at most 2**11, by symmetry.
DRAWN_PATTERNS = 9_999
FEWER_PATTERNS = 999  # if a row of predictions has more than MANY numbers: a metric then takes some 40 ms
MANY = 30_000
BLOCKS = 400  # If there are more units than this, they are left out in this many random blocks.
NO_INTERVAL = "no interval"
TOLERANCE = 1e-12  # Sums of the same terms in another order count as equal.


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (ddof = 1); the deviation of a single value is 0."""

    mean: float
    sd: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(*spread(values))


@dataclass(frozen=True)
class Interval:
    """The ends of a 95 % interval; with one unit they are infinite, and NaN after reading from a file."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A number with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """Row a against row b, in the metric's own unit (0..1 for WA, UA and WF1). Positive: a is higher."""

    DERIVED: ClassVar = ("verdict",)

    difference: float
    low: float  # -inf with one unit
    high: float  # +inf with one unit
    p: float  # two-sided
    units: int
    seeds: tuple[int, int]  # of a, of b
    method: str
    level: float = 0.95

    @property
    def significant(self) -> bool | None:
        """None below MIN_UNITS; else: the interval excludes 0 and p <= 1 - level."""
        if self.units < MIN_UNITS:
            return None
        return (self.low > 0 or self.high < 0) and self.p <= 1 - self.level + TOLERANCE

    @property
    def verdict(self) -> Verdict:
        """A tie means that the data show no difference, not that the two are equal."""
        if self.significant is None:
            return "no claim"
        if not self.significant:
            return "tie"
        return "better" if self.difference > 0 else "worse"


def paired(
    targets_N: np.ndarray,
    a_SN: np.ndarray,
    b_SN: np.ndarray,
    units_N: np.ndarray,
    metric: Metric,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Paired:
    """Is row a better than row b on the same N test utterances?

    a_SN and b_SN hold one row of predictions per seed (the two may have different numbers of seeds); every utterance
    is tested exactly once per row, so the folds are pooled. units_N labels the independent unit of each utterance.
    Any metric will do: WA, UA and WF1 take class indices; those of `bas.stats.shares` take rows of targets and
    predictions `(S, N, O)`.

    Estimate: the mean over seeds of metric(targets, a[s]) minus the same of b, on pooled predictions.

    Interval: pseudo-values U·d − (U−1)·d₍₋ᵤ₎ of that difference with one unit u deleted at a time; their standard
    error with Student-t on U − 1 degrees of freedom, centred on the estimate. For accuracy this is the jackknife of
    the ratio estimator Σ differences of hits / Σ utterances over units (Cochran 1977; Efron and Tibshirani 1993).
    The percentile bootstrap would be worse: over ten speakers it lacks both the t quantile (2.26, not 1.96) and the
    factor U / (U − 1) of the variance, so a nominal 95 % interval covers about 90 %. If deleting a unit removes a
    class, the metric decides what that means (UA averages over the classes still present). One unit: (−inf, inf). The
    ends stay within what a difference of the metric can be, see `clip`.

    p: two-sided randomisation test. For each sign pattern, the predictions of the chosen units are swapped between a
    and b, for all seeds together. Up to 12 units it is exact over all 2**U patterns, including the identity (half of
    them are tried: the complement of a pattern only negates the difference); above, it is (1 + count) / (1 + B) over
    B = 9,999 patterns drawn from `seed` (999 if there are very many predictions). If the two have different numbers of
    seeds, the rows of each are repeated to the least common multiple, which changes no mean; the test is then exact
    only if the two seed averages are exchangeable.

    Interval and p are about new speakers, for systems trained this way. They do not include the noise of a seed that
    all units share (`spread` shows it), the overlap of the folds' training data, or a correction for many comparisons.
    """
    n = len(targets_N)
    assert n > 0, "no utterances"
    assert units_N.shape == (n,), (targets_N.shape, units_N.shape)
    assert a_SN.shape[1:] == b_SN.shape[1:], (a_SN.shape, b_SN.shape)
    assert a_SN.shape[1] == n, (a_SN.shape, n)
    assert min(len(a_SN), len(b_SN)) > 0, "no seeds"
    assert 0 < level < 1, level

    labels_U, unit_N = np.unique(units_N, return_inverse=True)
    units = labels_U.size
    rows = math.lcm(len(a_SN), len(b_SN))
    a_RN, b_RN = (np.concatenate([x_SN] * (rows // len(x_SN))) for x_SN in (a_SN, b_SN))

    def difference_of(x_RM: np.ndarray, y_RM: np.ndarray, targets_M: np.ndarray) -> float:
        mean = sum(metric(targets_M, x_M) - metric(targets_M, y_M) for x_M, y_M in zip(x_RM, y_RM, strict=True)) / rows
        assert math.isfinite(mean), "the metric is not finite on a subset or a swap: there is no interval"
        return mean

    difference, low, high = interval(
        lambda k_N: difference_of(a_RN[:, k_N], b_RN[:, k_N], targets_N[k_N]),
        units_N,
        level,
        limits_of_difference(metric),
    )

    exact = units <= EXACT_UNITS
    if exact:
        flips_PU = (np.arange(2 ** (units - 1))[:, None] >> np.arange(units)) & 1 == 1  # the last unit never flips
    else:
        drawn = DRAWN_PATTERNS if a_SN[0].size <= MANY else FEWER_PATTERNS
        flips_PU = np.random.default_rng(seed).integers(0, 2, (drawn, units)) == 1
    threshold = abs(difference) - TOLERANCE
    count = 0
    for flip_U in flips_PU:
        flip_N = flip_U[unit_N].reshape(-1, *[1] * (a_SN.ndim - 2))
        swapped = difference_of(np.where(flip_N, b_RN, a_RN), np.where(flip_N, a_RN, b_RN), targets_N)
        count += abs(swapped) >= threshold
    p = count / len(flips_PU) if exact else (1 + count) / (1 + len(flips_PU))

    blocks = f" in {BLOCKS} blocks" if units > BLOCKS else ""
    spread_by = f"jackknife-t over {units} units{blocks}" if units > 1 else "no interval from 1 unit"
    test = "exact sign-flip" if exact else f"sign-flip over {len(flips_PU):,} drawn patterns"
    method = f"{spread_by}; {test}"
    return Paired(difference, low, high, p, units, (len(a_SN), len(b_SN)), method, level)


def interval(
    estimate: Callable[[np.ndarray], float], units_N: np.ndarray, level: float = 0.95, limits: Limits = ANY
) -> tuple[float, float, float]:
    """An estimate on all units with the ends of its interval, by `jackknife_t` as in `paired`.

    estimate: computes the number from the utterances that a boolean mask `(N,)` keeps. A choice that it repeats for
    each mask, such as the best of several rows, is part of the estimate. limits: see `clip`. One unit: (-inf, inf).
    More than BLOCKS units are grouped at random into BLOCKS blocks, which widens the interval only a little (Kott,
    *JOS* 17(4):521, 2001).
    """
    labels_U, unit_N = np.unique(units_N, return_inverse=True)
    if len(labels_U) > BLOCKS:
        unit_N = (np.random.default_rng(0).permutation(len(labels_U)) % BLOCKS)[unit_N]
        labels_U = np.arange(BLOCKS)
    whole = estimate(np.ones(len(units_N), bool))
    if len(labels_U) < 2:
        return whole, -math.inf, math.inf
    without_U = np.array([estimate(unit_N != u) for u in range(len(labels_U))])
    half_width = jackknife_t(whole, without_U, level)
    return whole, *clip(whole - half_width, whole + half_width, limits)


def clip(low: float, high: float, limits: Limits) -> tuple[float, float]:
    """The ends of an interval, within what the number can be.

    Near the largest accuracy a symmetric interval reaches beyond 1. What is cut off holds no possible value, so the
    interval covers as often as before, and excludes 0 as before.
    """
    return max(low, limits[0]), min(high, limits[1])


def jackknife_t(whole: float, without_U: np.ndarray, level: float) -> float:
    """Half the width of an interval, from the estimate on all units and the estimates without each of U >= 2 units.

    It is the standard error of the pseudo-values U·x − (U−1)·x₍₋ᵤ₎ times Student's t on U − 1 degrees of freedom.
    """
    units = len(without_U)
    pseudo_U = units * whole - (units - 1) * without_U
    return float(student_t.ppf((1 + level) / 2, units - 1) * np.std(pseudo_U, ddof=1) / math.sqrt(units))


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (ddof = 1) over seeds; the deviation of a single value is 0.0."""
    assert len(values) > 0, "no values"
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def between(low: float | None, high: float | None, sign: str = "+", *, scale: float = 100.0, digits: int = 1) -> str:
    """An interval's ends as a table has them, in points unless scaled otherwise: "-0.3 to +2.6".

    NO_INTERVAL where there is none: one unit alone gives infinite ends, which are None once written as JSON.
    """
    if low is None or high is None or not math.isfinite(low + high):
        return NO_INTERVAL
    return f"{scale * low:{sign}.{digits}f} to {scale * high:{sign}.{digits}f}"


def verdict_sentence(
    name: str, baseline: str, corpus: str, metric_name: str, paired: Paired, unit_name: str = "speaker"
) -> str:
    """One sentence for a table's foot. Differences in points, that is hundredths of the metric.

    An end of the interval that rounds to zero keeps its sign ("-0.0"), so the numbers never belie the verdict.
    unit_name is singular ("speaker", "session", "dialogue"); its plural takes an s.
    """
    units = f"{paired.units} {unit_name}" + ("" if paired.units == 1 else "s")
    difference = f"{metric_name} difference {100 * paired.difference:+.1f} points"
    ends = between(paired.low, paired.high)
    interval = ends if ends == NO_INTERVAL else f"{100 * paired.level:g} % interval {ends}"
    if paired.verdict == "no claim":
        return (
            f"{name} against {baseline} on {corpus} ({difference}, {interval}): "
            f"no significance is claimed with {units} (needs {MIN_UNITS})."
        )
    verb = {"better": "is better than", "worse": "is worse than", "tie": "is not distinguishable from"}[paired.verdict]
    return f"{name} {verb} {baseline} on {corpus} ({difference}, {interval}, {units}, sign-flip p {paired.p:.2g})."
