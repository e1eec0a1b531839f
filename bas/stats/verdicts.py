"""What a comparison says in words, what it could have said, and what many of them say together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from bas.stats.intervals import MIN_UNITS, Paired, mean_metric
from bas.stats.metrics import Metric
from bas.stats.sampling import Predictions, conclude, sample

NO_INTERVAL = "no interval"


def holm(ps: Sequence[float]) -> list[float]:
    """The p values of a family of comparisons, corrected so that a false one among them is as rare as for a single p.

    Holm, *Scandinavian Journal of Statistics* 6(2):65, 1979: valid however the comparisons depend on each other.
    """
    corrected, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True)
class FalseVerdicts:
    """How often a comparison of equals says better or worse."""

    count: int
    total: int

    @property
    def rate(self) -> float:
        return self.count / self.total


def a_against_a(
    targets_N: np.ndarray, rows: Sequence[Predictions], units_N: np.ndarray, metric: Metric
) -> FalseVerdicts | None:
    """False verdicts of rows against themselves: each seed against the mean of the row's other seeds.

    The noise of training of both sides is that of the other seeds, so the seed that is tried has no say in it. The
    comparisons share seeds and units: their rate has no simple interval. None where no row has three seeds, or there
    are fewer than MIN_UNITS units.
    """
    count = total = 0
    for row in rows:
        if row.seeds < 3 or not row.retrained or len(np.unique(units_N)) < MIN_UNITS:
            continue
        for seed in range(row.seeds):
            low, high = _against_others(targets_N, row, seed, units_N, metric)
            count, total = count + (low > 0 or high < 0), total + 1
    return FalseVerdicts(count, total) if total else None


def _against_others(
    targets_N: np.ndarray, row: Predictions, seed: int, units_N: np.ndarray, metric: Metric
) -> tuple[float, float]:
    """The interval of one seed minus the mean of the others."""
    others = Predictions(np.delete(row.rows_SN, seed, axis=0), row.folds_N)
    of_others = sample(partial(mean_metric, metric, targets_N), units_N, (others,))
    alone_N = row.rows_SN[[seed]]
    of_one = sample(lambda kept_N: mean_metric(metric, targets_N, kept_N, alone_N), units_N, ())
    # The variance of one training, from the others, times 1 + 1 / (S - 1).
    both = replace(of_others.trainings[0], models=(row.seeds - 1) / row.seeds)
    of = conclude(replace(of_one.minus(of_others), trainings=(both,)))
    return of.low, of.high


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
    difference = f"{metric_name} difference {100 * paired.difference:+.1f} points"
    ends = between(paired.low, paired.high)
    interval = ends if ends == NO_INTERVAL else f"{100 * paired.level:g} % interval {ends}"
    units = counted(paired, unit_name)
    if paired.verdict == "no claim":
        needs = f"needs {MIN_UNITS}" + (", or two seeds" if paired.by_fold and max(paired.seeds) == 1 else "")
        return (
            f"{name} against {baseline} on {corpus} ({difference}, {interval}): "
            f"no significance is claimed with {units} ({needs})."
        )
    verb = {"better": "is better than", "worse": "is worse than", "tie": "is not distinguishable from"}[paired.verdict]
    return f"{name} {verb} {baseline} on {corpus} ({difference}, {interval}, {units}, p {paired.p:.2g})."


def counted(paired: Paired, unit_name: str) -> str:
    """What the interval is over: "24 speakers"; "5 folds" where seeds do not show all noise of training, as of one."""
    name = "fold" if paired.by_fold else unit_name
    of = " of one training" if paired.by_fold and max(paired.seeds) == 1 else ""
    return f"{paired.units} {name}{'' if paired.units == 1 else 's'}{of}"
