"""No interval holds a value that its number cannot have."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from bas.stats import (
    Metric,
    Predictions,
    clip,
    interval,
    limited,
    limits_of,
    limits_of_difference,
    macro_f1,
    paired,
    ua,
    wa,
    wf1,
)
from bas.stats.ranking import contrast, sample_all
from bas.stats.shares import closeness, pearson, spearman, within
from bas.tasks import Classification, Shares

UNITS = np.repeat(np.arange(6), 8)
TRUTH = np.tile([0, 1], 24)
GOOD = np.where(np.arange(48) % 23 == 0, 1 - TRUTH, TRUTH)
GOOD[:3] = 1 - TRUTH[:3]


def row(predictions_N: np.ndarray) -> Predictions:
    return Predictions(predictions_N[None], UNITS)


def mean(metric: Metric, predictions_N: np.ndarray) -> Callable[[np.ndarray], float]:
    return lambda k_N: metric(TRUTH[k_N], predictions_N[k_N])


@pytest.mark.parametrize("metric", [wa, ua, wf1, macro_f1])
@pytest.mark.parametrize("predictions_N", [GOOD, 1 - GOOD])
def test_an_accuracy_stays_within_0_and_1(metric: Metric, predictions_N: np.ndarray) -> None:
    estimate = mean(metric, predictions_N)
    of = interval(estimate, UNITS, (), limits=limits_of(metric))
    free = interval(estimate, UNITS, ())
    assert of.value == free.value
    assert free.high > 1 or free.low < 0, "the data do not show it"
    assert (of.low, of.high) == (max(free.low, 0), min(free.high, 1))


@pytest.mark.parametrize("metric", [wa, ua, wf1, macro_f1])
def test_a_difference_stays_within_minus_1_and_1(metric: Metric) -> None:
    compared = paired(TRUTH, row(GOOD), row(1 - GOOD), UNITS, metric)
    plain = paired(TRUTH, row(GOOD), row(1 - GOOD), UNITS, lambda t_N, p_N: metric(t_N, p_N))
    assert plain.high > 1
    assert compared.high == 1
    assert (compared.low, compared.p, compared.verdict) == (plain.low, plain.p, plain.verdict)
    sampled = sample_all(TRUTH, np.stack([GOOD[None], 1 - GOOD[None]]), UNITS, UNITS, metric)
    assert contrast(sampled, np.array([1.0, -1.0]), limits=limits_of_difference(metric)).high == 1


def test_one_unit_still_has_no_interval() -> None:
    one = np.zeros(48)
    of = interval(mean(wa, GOOD), one, (), limits=limits_of(wa))
    assert (of.low, of.high) == (-math.inf, math.inf)
    assert paired(TRUTH, row(GOOD), row(1 - GOOD), one, wa).high == math.inf


def test_every_metric_of_the_tasks_declares_its_limits() -> None:
    every = {**Classification().metrics(("a", "b")), **Shares().metrics(("joy", "awe"))}
    limits = {name: limits_of(metric) for name, metric in every.items()}
    correlations = {name for name in every if name.startswith(("Spearman", "Pearson"))}
    assert all(limits[name] == (-1, 1) for name in correlations)
    assert limits["1-MAE"] == (-math.inf, 1)  # a prediction may be further than 1 from a share
    assert all(limits[name] == (0, 1) for name in every.keys() - correlations - {"1-MAE"})
    assert limits_of_difference(within(spearman)) == (-2, 2)
    assert limits_of(within(closeness)) == (-math.inf, 1)
    assert limits_of(within(pearson, 0)) == (-1, 1)


def test_a_metric_of_a_users_own_has_none_unless_it_declares_them() -> None:
    def error(targets_N: np.ndarray, predictions_N: np.ndarray) -> float:
        return -float(np.abs(targets_N - predictions_N).mean())

    assert limits_of(error) == (-math.inf, math.inf)
    assert limits_of(limited((-2.0, 0.0))(error)) == (-2, 0)


def test_nothing_is_hidden_by_clipping() -> None:
    assert clip(0.2, 0.7, (0.0, 1.0)) == (0.2, 0.7)
    assert all(math.isnan(end) for end in clip(math.nan, math.nan, (-math.inf, 1.0)))
