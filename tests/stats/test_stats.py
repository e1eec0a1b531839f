"""The statistics against hand computations, brute force and simulation."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from scipy.stats import t as student_t

from bas.stats import Metric, Paired, Predictions, paired, spread, ua, wa, wf1
from bas.stats.decisions import selection_frequency

METRICS = [wa, ua, wf1]


def draw_case(
    seed: int, *, units: int, per_unit: int = 12, classes: int = 4, seeds: int = 2, skill_a: float = 0.6
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Targets, predictions of a and of b (right by skill, else at random) and unit labels, in a shuffled order."""
    rng = np.random.default_rng(seed)
    units_N = rng.permutation(np.repeat(np.arange(units), per_unit + np.arange(units) % 5))
    n = units_N.size
    targets_N = rng.integers(0, classes, n)

    def answers(skill: float) -> np.ndarray:
        return np.where(rng.random((seeds, n)) < skill, targets_N, rng.integers(0, classes, (seeds, n)))

    return targets_N, answers(skill_a), answers(0.5), units_N


def compare(
    targets_N: np.ndarray, a_SN: np.ndarray, b_SN: np.ndarray, units_N: np.ndarray, metric: Metric, level: float = 0.95
) -> Paired:
    """Rows of which each unit is a fold: the trainings add nothing to what the units show."""
    a, b = (Predictions(rows_SN, units_N) for rows_SN in (a_SN, b_SN))
    return paired(targets_N, a, b, units_N, metric, level=level)


# --- the estimate, the interval and p ---


def test_accuracy_by_hand() -> None:
    # Six speakers of two utterances; a is right on both of each, b misses one of speakers 0..4 and both of speaker 5.
    targets_N = np.zeros(12, int)
    units_N = np.repeat(np.arange(6), 2)
    a, b = (Predictions(x, units_N) for x in (np.zeros((1, 12), int), np.array([[0, 1] * 5 + [1, 1]])))
    result = paired(targets_N, a, b, units_N, wa)
    # Equal sizes: the pseudo-values are the speakers' own differences 0.5 (five times) and 1.0, mean 7 / 12,
    # variance (5 · (1/12)² + (5/12)²) / 5 = 1 / 24, standard error sqrt(1 / 24 / 6) = 1 / 12; t(0.975, 5) = 2.570582.
    assert result.difference == pytest.approx(7 / 12)
    assert result.low == pytest.approx(7 / 12 - 2.570582 / 12, abs=1e-6)
    assert result.high == pytest.approx(7 / 12 + 2.570582 / 12, abs=1e-6)
    # Each unit is a fold of its own, so one seed is enough.
    assert result.p == pytest.approx(2 * student_t.sf(7, 5))
    assert (result.units, result.by_fold, result.seeds, result.verdict) == (6, False, (1, 1), "better")


def test_interval_is_the_jackknife_of_the_ratio_estimator_for_accuracy() -> None:
    targets_N, a_SN, b_SN, units_N = draw_case(1, units=9, seeds=3)
    result = compare(targets_N, a_SN, b_SN, units_N, wa, level=0.9)
    gain_N = ((a_SN == targets_N).astype(float) - (b_SN == targets_N)).mean(0)
    gain_U = np.bincount(units_N, gain_N)
    size_U = np.bincount(units_N)
    ratio = gain_U.sum() / size_U.sum()
    left_out_U = (gain_U.sum() - gain_U) / (size_U.sum() - size_U)
    error = np.sqrt(8 / 9 * np.sum((left_out_U - left_out_U.mean()) ** 2))
    assert result.difference == pytest.approx(ratio)
    assert result.se == pytest.approx(error)
    assert 5 < result.degrees < 8, "units of unequal size have fewer"
    quantile = student_t.ppf(0.95, result.degrees)
    assert result.high - result.difference == pytest.approx(quantile * error)
    assert result.difference - result.low == pytest.approx(result.high - result.difference)
    # Cochran's linearised standard error of the same ratio lies close by.
    linear = np.sqrt(9 / 8 * np.sum((gain_U - ratio * size_U) ** 2)) / size_U.sum()
    assert error == pytest.approx(linear, rel=0.1)


def test_unequal_numbers_of_seeds() -> None:
    targets_N, a_SN, b_SN, units_N = draw_case(4, units=7, seeds=3)
    result = compare(targets_N, a_SN, b_SN[:2], units_N, ua)
    means = np.mean([ua(targets_N, a) for a in a_SN]) - np.mean([ua(targets_N, b) for b in b_SN[:2]])
    assert result.difference == pytest.approx(means)
    assert result.seeds == (3, 2)


def test_a_real_valued_metric() -> None:
    rng = np.random.default_rng(5)
    units_N = np.repeat(np.arange(8), 15)
    targets_N = rng.normal(size=120)
    a_SN = targets_N + 0.3 * rng.normal(size=(2, 120))
    b_SN = targets_N + 3.0 * rng.normal(size=(2, 120))

    def spearman(targets: np.ndarray, predictions: np.ndarray) -> float:
        return float(spearmanr(targets, predictions).statistic)

    result = compare(targets_N, a_SN, b_SN, units_N, spearman)
    assert result.verdict == "better"
    # A metric that a subset leaves undefined is no interval, rather than a NaN in a table.
    with pytest.raises(AssertionError, match="not finite"):
        compare(targets_N, a_SN, b_SN, units_N, lambda targets, _: 1.0 if targets.size == 120 else float("nan"))


# --- what must not matter ---


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), units=st.integers(1, 8), metric=st.sampled_from(METRICS))
def test_swapping_a_and_b_negates(seed: int, units: int, metric: Metric) -> None:
    targets_N, a_SN, b_SN, units_N = draw_case(seed, units=units)
    ab = compare(targets_N, a_SN, b_SN, units_N, metric)
    ba = compare(targets_N, b_SN, a_SN, units_N, metric)
    assert (ab.difference, ab.p) == pytest.approx((-ba.difference, ba.p))
    assert (ab.low, ab.high) == pytest.approx((-ba.high, -ba.low))
    assert ab.low <= ab.difference <= ab.high
    assert 0 <= ab.p <= 1
    opposite = {"better": "worse", "worse": "better", "tie": "tie", "no claim": "no claim"}
    assert ab.verdict == opposite[ba.verdict]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), metric=st.sampled_from(METRICS))
def test_order_of_utterances_units_and_seeds_is_of_no_account(seed: int, metric: Metric) -> None:
    targets_N, a_SN, b_SN, units_N = draw_case(seed, units=7)
    rng = np.random.default_rng(seed)
    order_N = rng.permutation(targets_N.size)
    names_U = rng.permutation([f"speaker {u}" for u in range(7)])
    first = compare(targets_N, a_SN, b_SN, units_N, metric)
    again = compare(targets_N[order_N], a_SN[:, order_N], b_SN[:, order_N], names_U[units_N[order_N]], metric)
    assert dataclasses.astuple(again)[:4] == pytest.approx(dataclasses.astuple(first)[:4])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("units", [6, 10, 14])
def test_a_row_against_itself_is_a_tie(metric: Metric, units: int) -> None:
    targets_N, a_SN, _, units_N = draw_case(6, units=units, per_unit=3)
    result = compare(targets_N, a_SN, a_SN, units_N, metric)
    assert (result.difference, result.low, result.high, result.p, result.verdict) == (0, 0, 0, 1, "tie")
    # In folds of several units, two trainings might have differed: the interval is wider then.
    folded = Predictions(a_SN, units_N % 3)
    again = paired(targets_N, folded, folded, units_N, metric)
    assert again.low <= again.difference == 0 <= again.high
    assert again.verdict == "tie"


# --- verdicts ---


def simulate(seed: int, effect: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ten speakers of 20 to 60 utterances; the true accuracies of a and b differ by `effect` in expectation.

    Each speaker moves both accuracies (up to 0.15) and the difference between them (up to 0.1), independently of size.
    """
    rng = np.random.default_rng(seed)
    units_N = np.repeat(np.arange(10), rng.integers(20, 61, 10))
    both_U, gap_U = rng.uniform(-0.15, 0.15, 10), rng.uniform(-0.1, 0.1, 10)
    targets_N = rng.integers(0, 4, units_N.size)

    def answers(shift_U: np.ndarray) -> np.ndarray:
        right_N = rng.random(units_N.size) < (0.6 + both_U + shift_U)[units_N]
        return np.where(right_N, targets_N, (targets_N + rng.integers(1, 4, units_N.size)) % 4)[None]

    return targets_N, answers((effect + gap_U) / 2), answers(-(effect + gap_U) / 2), units_N


@pytest.mark.slow
def test_interval_covers_over_ten_speakers_and_the_bootstrap_does_not() -> None:
    effect, data_sets = 0.05, 400
    covered = bootstrap_covered = 0
    for i in range(data_sets):
        targets_N, a_SN, b_SN, units_N = simulate(i, effect)
        result = compare(targets_N, a_SN, b_SN, units_N, wa)
        covered += result.low <= effect <= result.high
        gain_U = np.bincount(units_N, (a_SN[0] == targets_N).astype(float) - (b_SN[0] == targets_N))
        drawn_BU = np.random.default_rng(i).integers(0, 10, (1_000, 10))
        ratio_B = gain_U[drawn_BU].sum(1) / np.bincount(units_N)[drawn_BU].sum(1)
        low, high = np.quantile(ratio_B, [0.025, 0.975])
        bootstrap_covered += low <= effect <= high
    assert 0.92 <= covered / data_sets <= 0.98
    assert bootstrap_covered / data_sets <= covered / data_sets - 0.02


@pytest.mark.slow
@pytest.mark.parametrize("metric", [wa, ua])
def test_false_verdicts_keep_to_five_in_a_hundred(metric: Metric) -> None:
    data_sets = 400 if metric is wa else 150
    verdicts = [compare(*simulate(10_000 + i, 0.0), metric).verdict for i in range(data_sets)]
    false = sum(verdict in ("better", "worse") for verdict in verdicts) / data_sets
    assert set(verdicts) <= {"better", "worse", "tie"}
    assert false <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / data_sets)


def test_bad_shapes_are_our_own_mistake() -> None:
    folds_N, row = np.arange(12), Predictions(np.zeros((2, 12), int), np.arange(12))
    for rows in (np.zeros(12, int), np.zeros((2, 11), int), np.zeros((0, 12), int)):
        with pytest.raises(AssertionError):
            Predictions(rows, folds_N)
    with pytest.raises(AssertionError):
        Predictions(np.zeros((2, 12), int), folds_N, again_RN=np.zeros((3, 11), int))
    good = {"targets_N": np.zeros(12, int), "a": row, "b": row, "units_N": np.arange(12), "metric": wa}
    assert paired(**good).verdict == "tie"
    for change in ({"targets_N": np.zeros(11, int)}, {"units_N": np.arange(11)}, {"level": 95}):
        with pytest.raises(AssertionError):
            paired(**(good | change))


# --- tables ---


def test_spread() -> None:
    assert spread([0.7, 0.8, 0.9]) == pytest.approx((0.8, 0.1))
    assert spread([0.7]) == (0.7, 0.0)
    with pytest.raises(AssertionError):
        spread([])


def test_selection_frequency() -> None:
    choices = [
        {"encoder": "lstm", "pool": "mean"},
        {"encoder": "conv", "pool": "mean"},
        {"encoder": "conv", "pool": "mean", "head": "mlp"},
        {"encoder": "attention", "pool": "attention"},
    ]
    frequency = selection_frequency(choices)
    assert frequency == {
        "encoder": {"conv": 0.5, "attention": 0.25, "lstm": 0.25},
        "pool": {"mean": 0.75, "attention": 0.25},
        "head": {"mlp": 1.0},
    }
    assert list(frequency) == ["encoder", "pool", "head"]
    assert list(frequency["encoder"]) == ["conv", "attention", "lstm"]
    assert selection_frequency([]) == {}
