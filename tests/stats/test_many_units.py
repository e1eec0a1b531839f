"""Intervals and tests where the units are very many."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bas.stats import interval, paired, wa
from bas.stats.intervals import BLOCKS, MANY


def test_very_many_units_are_left_out_in_blocks() -> None:
    rng = np.random.default_rng(0)
    targets_N, a_N, b_N = (rng.integers(0, 2, 3000) for _ in range(3))
    units_N = np.repeat(np.arange(1500), 2)
    calls = 0

    def estimate(k_N: np.ndarray) -> float:
        nonlocal calls
        calls += 1
        return wa(targets_N[k_N], a_N[k_N]) - wa(targets_N[k_N], b_N[k_N])

    value, low, high = interval(estimate, units_N)
    assert calls == 1 + BLOCKS
    # The standard error of a mean difference of hits, by the central limit theorem over units.
    of_unit_U = ((targets_N == a_N).astype(float) - (targets_N == b_N)).reshape(1500, 2).mean(1)
    error = of_unit_U.std(ddof=1) / math.sqrt(1500)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    assert low < value < high
    assert interval(estimate, units_N) == (value, low, high)


def test_very_many_predictions_take_fewer_patterns() -> None:
    rng = np.random.default_rng(0)
    units_N = np.arange(MANY + 1) % 20
    targets_N, a_N, b_N = (rng.integers(0, 2, MANY + 1) for _ in range(3))
    difference = paired(targets_N, a_N[None], b_N[None], units_N, wa)
    assert difference.method.endswith("sign-flip over 999 drawn patterns")
    assert 1 / 1000 <= difference.p <= 1
