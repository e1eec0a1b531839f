"""The statistics against hand computations, brute force and simulation."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from bas.stats import (
    MIN_UNITS,
    Metric,
    Paired,
    interval,
    jackknife_t,
    paired,
    spread,
    ua,
    verdict_sentence,
    wa,
    wf1,
)
from bas.stats.decisions import selection_frequency
from bas.stats.intervals import DRAWN_PATTERNS

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


# --- the estimate, the interval and p ---


def test_accuracy_by_hand() -> None:
    # Six speakers of two utterances; a is right on both of each, b misses one of speakers 0..4 and both of speaker 5.
    targets_N = np.zeros(12, int)
    a_SN = np.zeros((1, 12), int)
    b_SN = np.array([[0, 1] * 5 + [1, 1]])
    result = paired(targets_N, a_SN, b_SN, np.repeat(np.arange(6), 2), wa)
    # Equal sizes: the pseudo-values are the speakers' own differences 0.5 (five times) and 1.0, mean 7 / 12,
    # variance (5 · (1/12)² + (5/12)²) / 5 = 1 / 24, standard error sqrt(1 / 24 / 6) = 1 / 12; t(0.975, 5) = 2.570582.
    assert result.difference == pytest.approx(7 / 12)
    assert result.low == pytest.approx(7 / 12 - 2.570582 / 12, abs=1e-6)
    assert result.high == pytest.approx(7 / 12 + 2.570582 / 12, abs=1e-6)
    assert result.p == 2 / 64  # only all as they are and all swapped are this far out
    assert (result.units, result.seeds, result.verdict) == (6, (1, 1), "better")
    assert result.method == "jackknife-t over 6 units; exact sign-flip"


def test_interval_is_the_jackknife_of_the_ratio_estimator_for_accuracy() -> None:
    targets_N, a_SN, b_SN, units_N = draw_case(1, units=9, seeds=3)
    result = paired(targets_N, a_SN, b_SN, units_N, wa, level=0.9)
    gain_N = ((a_SN == targets_N).astype(float) - (b_SN == targets_N)).mean(0)
    gain_U = np.bincount(units_N, gain_N)
    size_U = np.bincount(units_N)
    ratio = gain_U.sum() / size_U.sum()
    left_out_U = (gain_U.sum() - gain_U) / (size_U.sum() - size_U)
    error = np.sqrt(8 / 9 * np.sum((left_out_U - left_out_U.mean()) ** 2))
    assert result.difference == pytest.approx(ratio)
    assert result.high - result.difference == pytest.approx(1.859548 * error, rel=1e-6)  # t(0.95, 8)
    assert result.difference - result.low == pytest.approx(result.high - result.difference)
    # Cochran's linearised standard error of the same ratio lies close by.
    linear = np.sqrt(9 / 8 * np.sum((gain_U - ratio * size_U) ** 2)) / size_U.sum()
    assert error == pytest.approx(linear, rel=0.1)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("skill_a", [0.5, 0.65])
def test_sign_flip_equals_brute_force(metric: Metric, skill_a: float) -> None:
    targets_N, a_SN, b_SN, units_N = draw_case(2, units=6, skill_a=skill_a)
    observed = np.mean([metric(targets_N, a) - metric(targets_N, b) for a, b in zip(a_SN, b_SN, strict=True)])
    as_far = 0
    for signs in itertools.product([False, True], repeat=6):
        a2_SN, b2_SN = a_SN.copy(), b_SN.copy()
        for unit in range(6):
            if signs[unit]:
                a2_SN[:, units_N == unit], b2_SN[:, units_N == unit] = (
                    b_SN[:, units_N == unit],
                    a_SN[:, units_N == unit],
                )
        swapped = np.mean([metric(targets_N, a) - metric(targets_N, b) for a, b in zip(a2_SN, b2_SN, strict=True)])
        as_far += abs(swapped) >= abs(observed) - 1e-12
    result = paired(targets_N, a_SN, b_SN, units_N, metric)
    assert result.difference == pytest.approx(observed)
    assert result.p == as_far / 64


@pytest.mark.parametrize("seed", [1, 2, 3, 7])
def test_sign_flip_counts_a_draw_as_a_draw(seed: int) -> None:
    # Thirds do not add up alike in every order: whole numbers of hits say which patterns are as far out.
    targets_N, a_SN, b_SN, units_N = draw_case(seed, units=8, seeds=3, skill_a=0.55)
    gain_N = (a_SN == targets_N).sum(0) - (b_SN == targets_N).sum(0)
    gain_U = np.array([gain_N[units_N == unit].sum() for unit in range(8)])
    signs_PU = np.array(list(itertools.product([-1, 1], repeat=8)))
    as_far = np.count_nonzero(np.abs(signs_PU @ gain_U) >= abs(gain_U.sum()))
    assert paired(targets_N, a_SN, b_SN, units_N, wa).p == as_far / 256


def test_drawn_patterns_agree_with_the_normal_limit_and_repeat() -> None:
    targets_N, a_SN, b_SN, units_N = draw_case(3, units=40, per_unit=4, skill_a=0.58)
    result = paired(targets_N, a_SN, b_SN, units_N, wa)
    assert f"{DRAWN_PATTERNS:,} drawn" in result.method
    assert result == paired(targets_N, a_SN, b_SN, units_N, wa)
    other = paired(targets_N, a_SN, b_SN, units_N, wa, seed=1)
    assert other.p != result.p  # other patterns
    assert other.p == pytest.approx(result.p, abs=0.03)
    # For accuracy the flipped sums have variance Σ gain², so p is near the normal tail.
    gain_U = np.bincount(units_N, ((a_SN == targets_N).astype(float) - (b_SN == targets_N)).mean(0))
    z = abs(gain_U.sum()) / np.sqrt(np.sum(gain_U**2))
    normal_p = np.mean(np.abs(np.random.default_rng(0).standard_normal(100_000)) >= z)
    assert result.p == pytest.approx(normal_p, abs=0.03)
    # The smallest p that 9,999 draws can give is 1 / 10,000, never 0.
    perfect = paired(targets_N, targets_N[None], (targets_N[None] + 1) % 4, units_N, wa)
    assert perfect.p == 1 / (1 + DRAWN_PATTERNS)


def test_unequal_numbers_of_seeds() -> None:
    targets_N, a_SN, b_SN, units_N = draw_case(4, units=7, seeds=3)
    result = paired(targets_N, a_SN, b_SN[:2], units_N, ua)
    means = np.mean([ua(targets_N, a) for a in a_SN]) - np.mean([ua(targets_N, b) for b in b_SN[:2]])
    assert result.difference == pytest.approx(means)
    assert result.seeds == (3, 2)
    # Writing every seed down twice changes nothing.
    equal = paired(targets_N, a_SN, b_SN, units_N, ua)
    twice = paired(targets_N, np.repeat(a_SN, 2, 0), np.repeat(b_SN, 2, 0), units_N, ua)
    assert (twice.difference, twice.low, twice.p) == pytest.approx((equal.difference, equal.low, equal.p))


def test_a_real_valued_metric() -> None:
    rng = np.random.default_rng(5)
    units_N = np.repeat(np.arange(8), 15)
    targets_N = rng.normal(size=120)
    a_SN = targets_N + 0.3 * rng.normal(size=(2, 120))
    b_SN = targets_N + 3.0 * rng.normal(size=(2, 120))

    def spearman(targets: np.ndarray, predictions: np.ndarray) -> float:
        return float(spearmanr(targets, predictions).statistic)

    result = paired(targets_N, a_SN, b_SN, units_N, spearman)
    assert result.verdict == "better"
    assert result.p == 2 / 256
    # A metric that a subset leaves undefined is no interval, rather than a NaN that counts as "not as far out".
    with pytest.raises(AssertionError, match="not finite"):
        paired(targets_N, a_SN, b_SN, units_N, lambda targets, _: 1.0 if targets.size == 120 else float("nan"))


# --- what must not matter ---


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), units=st.integers(1, 8), metric=st.sampled_from(METRICS))
def test_swapping_a_and_b_negates(seed: int, units: int, metric: Metric) -> None:
    targets_N, a_SN, b_SN, units_N = draw_case(seed, units=units)
    ab = paired(targets_N, a_SN, b_SN, units_N, metric)
    ba = paired(targets_N, b_SN, a_SN, units_N, metric)
    assert (ab.difference, ab.p) == (-ba.difference, ba.p)
    assert (ab.low, ab.high) == pytest.approx((-ba.high, -ba.low))
    assert ab.low <= ab.difference <= ab.high
    assert 2 / 2**units <= ab.p <= 1
    opposite = {"better": "worse", "worse": "better", "tie": "tie", "no claim": "no claim"}
    assert ab.verdict == opposite[ba.verdict]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), metric=st.sampled_from(METRICS))
def test_order_of_utterances_units_and_seeds_is_of_no_account(seed: int, metric: Metric) -> None:
    targets_N, a_SN, b_SN, units_N = draw_case(seed, units=7)
    rng = np.random.default_rng(seed)
    order_N = rng.permutation(targets_N.size)
    names_U = rng.permutation([f"speaker {u}" for u in range(7)])
    first = paired(targets_N, a_SN, b_SN, units_N, metric)
    again = paired(targets_N[order_N], a_SN[:, order_N], b_SN[:, order_N], names_U[units_N[order_N]], metric)
    assert dataclasses.astuple(again)[:4] == pytest.approx(dataclasses.astuple(first)[:4])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("units", [6, 10, 14])
def test_a_row_against_itself_is_a_tie(metric: Metric, units: int) -> None:
    targets_N, a_SN, _, units_N = draw_case(6, units=units, per_unit=3)
    result = paired(targets_N, a_SN, a_SN, units_N, metric)
    assert (result.difference, result.low, result.high, result.p, result.verdict) == (0, 0, 0, 1, "tie")


# --- verdicts ---


@pytest.mark.parametrize("units", range(1, MIN_UNITS + 1))
def test_no_claim_below_six_units_however_large_the_difference(units: int) -> None:
    targets_N, _, _, units_N = draw_case(7, units=units)
    right_SN, wrong_SN = targets_N[None], (targets_N[None] + 1) % 4
    result = paired(targets_N, right_SN, wrong_SN, units_N, wa)
    assert result.p == 2 / 2**units
    if units < MIN_UNITS:
        assert result.significant is None
        assert result.verdict == "no claim"
        assert result.p > 0.05  # the reason for six
    else:
        assert result.significant
        assert result.verdict == "better"
        assert paired(targets_N, wrong_SN, right_SN, units_N, wa).verdict == "worse"
    if units == 1:
        assert (result.low, result.high) == (-np.inf, np.inf)
        assert result.method == "no interval from 1 unit; exact sign-flip"


def test_a_claim_needs_the_interval_and_p() -> None:
    sure = Paired(0.02, 0.01, 0.03, 0.05, 10, (3, 3), "")
    assert sure.verdict == "better"
    assert dataclasses.replace(sure, p=0.051).verdict == "tie"
    assert dataclasses.replace(sure, low=-0.001).verdict == "tie"
    assert dataclasses.replace(sure, difference=-0.02, low=-0.03, high=-0.01).verdict == "worse"
    assert dataclasses.replace(sure, p=0.1, level=0.9).verdict == "better"  # 1 - 0.9 is a hair below 0.1
    assert dataclasses.replace(sure, level=0.99).verdict == "tie"
    assert dataclasses.replace(sure, units=5, p=0.0625).verdict == "no claim"


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
        result = paired(targets_N, a_SN, b_SN, units_N, wa)
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
    verdicts = [paired(*simulate(10_000 + i, 0.0), metric).verdict for i in range(data_sets)]
    false = sum(verdict in ("better", "worse") for verdict in verdicts) / data_sets
    assert set(verdicts) <= {"better", "worse", "tie"}
    assert false <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / data_sets)


@pytest.mark.parametrize(
    "change",
    [
        {"targets_N": np.zeros(11, int)},
        {"targets_N": np.zeros((1, 12), int)},
        {"a_SN": np.zeros(12, int)},
        {"a_SN": np.zeros((2, 11), int)},
        {"b_SN": np.zeros((0, 12), int)},
        {"units_N": np.arange(11)},
        {"level": 95},
    ],
)
def test_bad_shapes_are_our_own_mistake(change: dict[str, object]) -> None:
    good = {
        "targets_N": np.zeros(12, int),
        "a_SN": np.zeros((2, 12), int),
        "b_SN": np.zeros((2, 12), int),
        "units_N": np.arange(12),
        "metric": wa,
    }
    assert paired(**good).verdict == "tie"
    with pytest.raises(AssertionError):
        paired(**(good | change))


# --- tables ---


def test_spread() -> None:
    assert spread([0.7, 0.8, 0.9]) == pytest.approx((0.8, 0.1))
    assert spread([0.7]) == (0.7, 0.0)
    with pytest.raises(AssertionError):
        spread([])


def test_verdict_sentences() -> None:
    tie = Paired(0.006, -0.009, 0.021, 0.41, 10, (3, 3), "")
    better = Paired(0.02, 0.01, 0.03, 2 / 1024, 10, (3, 3), "", 0.9)
    worse = Paired(-0.02, -0.03, -0.0001, 0.01, 280, (3, 3), "")
    few = dataclasses.replace(tie, units=5)
    one = dataclasses.replace(tie, units=1, low=-np.inf, high=np.inf, p=1.0)
    rows = ("BAS-4", "the 4-layer transformer")
    assert verdict_sentence(*rows, "emodb", "WA", tie, "speaker") == (
        "BAS-4 is not distinguishable from the 4-layer transformer on emodb "
        "(WA difference +0.6 points, 95 % interval -0.9 to +2.1, 10 speakers, sign-flip p 0.41)."
    )
    assert verdict_sentence(*rows, "emodb", "UA", better, "speaker") == (
        "BAS-4 is better than the 4-layer transformer on emodb "
        "(UA difference +2.0 points, 90 % interval +1.0 to +3.0, 10 speakers, sign-flip p 0.002)."
    )
    assert verdict_sentence(*rows, "meld", "WF1", worse, "dialogue") == (
        "BAS-4 is worse than the 4-layer transformer on meld "
        "(WF1 difference -2.0 points, 95 % interval -3.0 to -0.0, 280 dialogues, sign-flip p 0.01)."
    )
    assert verdict_sentence(*rows, "iemocap", "WA", few, "session") == (
        "BAS-4 against the 4-layer transformer on iemocap (WA difference +0.6 points, 95 % interval -0.9 to +2.1): "
        "no significance is claimed with 5 sessions (needs 6)."
    )
    assert verdict_sentence(*rows, "one", "WA", one, "speaker") == (
        "BAS-4 against the 4-layer transformer on one (WA difference +0.6 points, no interval): "
        "no significance is claimed with 1 speaker (needs 6)."
    )


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


# --- an interval of anything ---


@pytest.mark.parametrize("units", [1, 2, 9])
def test_the_interval_of_a_difference_is_that_of_a_paired_comparison(units: int) -> None:
    targets_N, a_SN, b_SN, units_N = draw_case(8, units=units)

    def mean(row_SN: np.ndarray, k_N: np.ndarray) -> float:
        return float(np.mean([ua(targets_N[k_N], row_N[k_N]) for row_N in row_SN]))

    compared = paired(targets_N, a_SN, b_SN, units_N, ua, level=0.9)
    names_N = np.array([f"s{u}" for u in units_N])
    estimate = interval(lambda k_N: mean(a_SN, k_N) - mean(b_SN, k_N), names_N, 0.9)
    assert estimate == pytest.approx((compared.difference, compared.low, compared.high))
    assert math.isinf(estimate[2]) == (units == 1)


def test_a_choice_within_the_estimate_is_made_again_without_each_unit() -> None:
    """Row a is the better one only thanks to unit 0: without it b is taken."""
    a_N, b_N = np.array([1, 1, 1, 0, 0, 0, 1, 0.0]), np.array([0, 0, 1, 0, 1, 0, 0, 1.0])
    units_N = np.repeat(np.arange(4), 2)
    whole, low, high = interval(lambda k_N: max(a_N[k_N].mean(), b_N[k_N].mean()), units_N)
    without_U = np.array([3 / 6, 3 / 6, 4 / 6, 3 / 6])  # b, a or b, a, a
    assert whole == 4 / 8
    assert (high - low) / 2 == pytest.approx(jackknife_t(0.5, without_U, 0.95))
    assert (high - low) / 2 != pytest.approx(jackknife_t(0.5, np.array([2 / 6, 3 / 6, 4 / 6, 3 / 6]), 0.95))
