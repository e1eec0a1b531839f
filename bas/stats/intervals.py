"""Intervals, paired comparisons and their verdicts. `sampling` says where their variance comes from.

Axes: N test utterances pooled over the folds, S seeds, U independent units (speakers, sessions, dialogues).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
from scipy.stats import t as student_t

from bas.stats.metrics import ANY, Limits, Metric, limits_of, limits_of_difference
from bas.stats.sampling import LEVEL, TOLERANCE, Conclusion, Predictions, Statistic, conclude, sample

Verdict = Literal["better", "worse", "tie", "no claim"]

MIN_UNITS = 4  # Below, an interval is shown, but too few units stand behind it for a verdict.
POWER = 0.8
NO_INTERVAL = "no interval"


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
    """The ends of a 95 % interval; infinite where there is none, and NaN after reading from a file."""

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

    DERIVED: ClassVar = ("verdict", "detectable")

    difference: float
    low: float  # -inf without an interval
    high: float  # +inf without an interval
    p: float  # two-sided
    se: float
    degrees: float  # of freedom of Student's t
    units: int
    by_fold: bool  # the units are the folds, as a row has one training a fold
    seeds: tuple[int, int]  # of a, of b
    seeds_se: float  # the part of se that more seeds would make smaller
    level: float = LEVEL

    @classmethod
    def of(cls, gap: Conclusion, seeds: tuple[int, int]) -> Paired:
        """Of a difference that was sampled otherwise than by `paired`, as of two rows that one training made."""
        return cls(
            gap.value,
            gap.low,
            gap.high,
            gap.p,
            gap.se,
            gap.degrees,
            gap.units,
            gap.by_fold,
            seeds,
            gap.seeds_se,
            gap.level,
        )

    @property
    def significant(self) -> bool | None:
        """Whether the interval excludes 0; None without an interval, or below MIN_UNITS."""
        if self.units < MIN_UNITS or not math.isfinite(self.low + self.high):
            return None
        return self.p <= 1 - self.level + TOLERANCE

    @property
    def verdict(self) -> Verdict:
        """A tie means that the data show no difference, not that the two are equal."""
        if self.significant is None:
            return "no claim"
        if not self.significant:
            return "tie"
        return "better" if self.difference > 0 else "worse"

    @property
    def detectable(self) -> float | None:
        """The true difference that such data would show as better or worse with a probability of POWER."""
        return self.detectable_with(1.0)

    def detectable_with(self, times: float) -> float | None:
        """The same with so many times the seeds; math.inf: without any noise of seeds. None: no claim.

        The degrees of freedom stay, which is cautious: more seeds have more.
        """
        if self.significant is None:
            return None
        se = math.sqrt(max(0.0, self.se**2 - self.seeds_se**2 * (1 - 1 / times)))
        return se * float(student_t.ppf((1 + self.level) / 2, self.degrees) + student_t.ppf(POWER, self.degrees))


def paired(
    targets_N: np.ndarray,
    a: Predictions,
    b: Predictions,
    units_N: np.ndarray,
    metric: Metric,
    *,
    level: float = LEVEL,
) -> Paired:
    """Is row a better than row b on the same N test utterances?

    Every utterance is tested once by each seed, so the folds are pooled; a and b may have different numbers of seeds.
    units_N labels the independent unit of each utterance. Any metric will do: WA, UA and WF1 take class indices; those
    of `bas.stats.shares` take rows of targets and predictions `(S, N, O)`.

    The estimate is the mean over seeds of metric(targets, a[s]) minus the same of b. Interval and p are `interval`'s:
    they are about new units and new trainings. The trainings of a and b are taken as independent, also where they share
    seeds; if these help or harm both alike, the interval is wider than need be. Not in it: another choice of the
    training speakers (but for rows with `again_RN`), and a correction for many comparisons (`holm`). If deleting a unit
    removes a class, the metric decides what that means (UA averages over the classes still present).
    """
    assert len(targets_N) == len(units_N), (targets_N.shape, units_N.shape)

    of_a, of_b = (sample(partial(mean_metric, metric, targets_N), units_N, (row,), (a, b)) for row in (a, b))
    return Paired.of(conclude(of_a.minus(of_b), level, limits_of_difference(metric)), (a.seeds, b.seeds))


def mean_metric(metric: Metric, targets_N: np.ndarray, kept_N: np.ndarray, rows_SN: np.ndarray) -> float:
    """The metric of the utterances that a mask keeps, mean over seeds."""
    if not kept_N.all():
        targets_N, rows_SN = targets_N[kept_N], rows_SN[:, kept_N]
    value = sum(metric(targets_N, row_N) for row_N in rows_SN) / len(rows_SN)
    assert math.isfinite(value), "the metric is not finite on a subset: there is no interval"
    return value


def interval(
    statistic: Statistic, units_N: np.ndarray, rows: Sequence[Predictions], level: float = LEVEL, limits: Limits = ANY
) -> Estimate:
    """A number with its interval, over units and trainings; see the module."""
    of = conclude(sample(statistic, units_N, rows), level, limits)
    return Estimate(of.value, of.low, of.high)


def interval_of_mean(
    targets_N: np.ndarray, row: Predictions, units_N: np.ndarray, metric: Metric, level: float = LEVEL
) -> Interval:
    """The interval of a row's metric, the mean over seeds."""
    of = interval(partial(mean_metric, metric, targets_N), units_N, (row,), level, limits_of(metric))
    return Interval(of.low, of.high)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (ddof = 1) over seeds; the deviation of a single value is 0.0."""
    assert len(values) > 0, "no values"
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
