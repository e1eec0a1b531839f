"""The audit's statistics against hand computations, brute force and simulations whose truth is known."""

# mypy: disable-error-code="arg-type,comparison-overlap"

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from bas.stats import Metric, limits_of_difference, paired, ua, wa, wf1
from bas.stats.ranking import (
    Effect,
    a_against_a,
    agreement,
    ceiling,
    contrast,
    halves,
    leave_one_out,
    marginal_effects,
    percentile,
    regret,
    simulated_null,
    split_half,
)

BLOCKS = ("MSA+FFN", "MSA", "FFN")
GRID = tuple({"layer1": a, "layer2": b} for a, b in itertools.product(BLOCKS, BLOCKS))


def answers(
    seed: int, skill_AU: np.ndarray, *, seeds: int = 2, per_unit: int = 25, classes: int = 4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, predictions `(A, S, N)` that are right with the unit's skill, and unit labels, of unequal sizes."""
    rng = np.random.default_rng(seed)
    architectures, units = skill_AU.shape
    units_N = rng.permutation(np.repeat(np.arange(units), per_unit + np.arange(units) % 4))
    targets_N = rng.integers(0, classes, units_N.size)
    right_ASN = rng.random((architectures, seeds, units_N.size)) < skill_AU[:, None, units_N]
    wrong_ASN = (targets_N + rng.integers(1, classes, right_ASN.shape)) % classes
    return targets_N, np.where(right_ASN, targets_N, wrong_ASN), units_N


# --- halves, ranks ---


@pytest.mark.parametrize(("seeds", "count"), [(1, 0), (2, 1), (3, 3), (4, 3), (5, 10), (6, 10), (8, 35)])
def test_halves_hold_every_split_once(seeds: int, count: int) -> None:
    splits = {frozenset((frozenset(np.flatnonzero(h)), frozenset(np.flatnonzero(~h)))) for h in halves(seeds)}
    assert len(halves(seeds)) == len(splits) == count
    assert all({len(part) for part in split} == {seeds // 2, seeds - seeds // 2} for split in splits)


def test_percentile_by_hand() -> None:
    truth_A = np.array([0.5, 0.7, 0.7, 0.9, 0.1 + 0.2 + 0.4])  # the last is 0.7 but for the last bits
    assert [percentile(truth_A, i) for i in range(5)] == [0.0, 0.5, 0.5, 1.0, 0.5]
    with pytest.raises(AssertionError):
        percentile(np.array([0.5]), 0)


@settings(max_examples=50, deadline=None)
@given(truth=st.lists(st.integers(0, 9), min_size=2, max_size=30))
def test_a_random_pick_expects_the_percentile_one_half(truth: list[int]) -> None:
    truth_A = np.array(truth) / 10
    assert np.mean([percentile(truth_A, i) for i in range(len(truth))]) == pytest.approx(0.5)


def test_agreement() -> None:
    truth_A = np.array([0.1, 0.2, 0.3, 0.4])
    scores_PA = np.array([[1.0, 2, 3, 4], [4.0, 3, 2, 1], [5.0, 5, 5, 5], [2.0, 1, 3, 4]])
    result = agreement(scores_PA, truth_A)
    assert result.taus == pytest.approx((1, -1, 0, 4 / 6))
    assert result.rhos == pytest.approx((1, -1, 0, 0.8))
    assert (result.tau, result.tau_sd) == pytest.approx((np.mean(result.taus), np.std(result.taus, ddof=1)))
    assert (result.rho, result.rho_sd) == pytest.approx((np.mean(result.rhos), np.std(result.rhos, ddof=1)))
    assert result.constant == 1
    assert result.mean_score_tau == pytest.approx(kendalltau(scores_PA.mean(0), truth_A).statistic)
    json.dumps(dataclasses.asdict(result), allow_nan=False)
    # A truth without differences is agreed with by nobody; that is 0 too, and no constant score.
    flat = agreement(scores_PA[:1], np.array([0.1 + 0.2, 0.3, 0.3, 0.3]))
    assert (flat.tau, flat.tau_sd, flat.mean_score_rho, flat.constant) == (0, 0, 0, 0)


@pytest.mark.parametrize("seeds", [2, 3, 4, 5])
def test_split_half_equals_brute_force(seeds: int) -> None:
    accuracy_AS = np.random.default_rng(seeds).normal(size=(9, 1)) + np.random.default_rng(1).normal(size=(9, seeds))
    taus = {}
    for order in itertools.permutations(range(seeds)):
        first, second = sorted((order[: seeds // 2], order[seeds // 2 :]), key=len)
        key = frozenset((frozenset(first), frozenset(second)))
        taus[key] = kendalltau(accuracy_AS[:, first].mean(1), accuracy_AS[:, second].mean(1)).statistic
    assert split_half(accuracy_AS) == pytest.approx(np.mean(list(taus.values())))


def test_one_seed_tells_nothing_of_its_own_noise() -> None:
    accuracy_AS = np.array([[0.5], [0.6], [0.7]])
    assert split_half(accuracy_AS) is None
    assert ceiling(accuracy_AS) is None
    result = regret(accuracy_AS, [0])
    assert (result.cross_fitted, result.naive) == (None, pytest.approx(0.2))


# --- regret ---


def test_regret_of_equal_architectures_is_zero_cross_fitted_and_a_point_and_a_half_naive() -> None:
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(600):
        accuracy_AS = 88 + rng.normal(0, 0.5, 3) + rng.normal(0, 1.3, (27, 3))
        result = regret(accuracy_AS, [int(rng.integers(27))])
        pairs.append((result.cross_fitted, result.naive))
    crossed, naive = np.mean(pairs, axis=0)
    error = np.std(pairs, axis=0)[0] / math.sqrt(len(pairs))
    assert abs(crossed) <= 3 * error <= 0.2
    assert 1.4 <= naive <= 1.7


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_true_regret_lies_between_cross_fitted_and_naive(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    true_A = np.linspace(0, 3, 10)
    results = [regret(true_A[:, None] + rng.normal(0, 1, (10, seeds)), [4, 6]) for _ in range(400)]
    truth = 3 - true_A[[4, 6]].mean()
    assert np.mean([r.cross_fitted for r in results]) < truth < np.mean([r.naive for r in results])


def test_regret_by_hand_without_noise_and_with_ties() -> None:
    accuracy_AS = np.array([0.5, 0.7, 0.9])[:, None] + np.array([0.0, 0.05, -0.05])
    result = regret(accuracy_AS, [0, 1])
    assert (result.cross_fitted, result.naive, result.picks) == (pytest.approx(0.3), pytest.approx(0.3), 2)
    assert regret(accuracy_AS, [2]).cross_fitted == pytest.approx(0)
    everyone = regret(accuracy_AS, range(3))
    assert everyone.naive == pytest.approx(accuracy_AS.mean(1).max() - accuracy_AS.mean())
    # Two seeds, chosen on one and scored on the other: the tied first two are averaged, 0.6 and then 0.7 to the third.
    tied_AS = np.array([[0.8, 0.4], [0.8, 0.8], [0.1, 0.0]])
    assert regret(tied_AS, [2]).cross_fitted == pytest.approx((0.6 + 0.7) / 2)


# --- ceiling ---


def test_ceiling_without_noise_is_one_and_without_signal_near_zero() -> None:
    rng = np.random.default_rng(0)
    true_A = rng.normal(0.8, 0.02, 27)
    perfect = ceiling(true_A[:, None] + np.array([0.0, 0.01, -0.02]))  # the seeds' own means are no noise
    assert perfect is not None
    assert (perfect.tau, perfect.reliability, perfect.reliability_low) == pytest.approx((1, 1, 1), abs=1e-6)
    assert perfect.low > 0.999
    assert (perfect.architecture_sd, perfect.noise_sd) == pytest.approx((np.std(true_A, ddof=1), 0), abs=1e-9)
    none = [ceiling(rng.normal(0.8, 0.02, (27, 3)), draws=10) for _ in range(100)]
    assert np.median([c.reliability for c in none if c]) <= 0.1
    nothing = [c for c in none if c and c.architecture_sd == 0]
    assert len(nothing) >= 30
    assert {(c.tau, c.low, c.high, c.reliability) for c in nothing} == {(0, 0, 0, 0)}
    # All equal, but some in the last bits.
    equal_AS = 0.7 + np.arange(27)[:, None] % 2 * np.full(3, 1e-14)
    assert ceiling(equal_AS) == type(perfect)(0, 0, 0, 0, pytest.approx(0, abs=1e-12), 0, 0, 0)


def test_ceiling_recovers_the_variances_and_equals_a_brute_force_simulation() -> None:
    # Architecture sd 1, noise sd 1.5, 3 seeds, in a space so large that the variances are all but known.
    rng = np.random.default_rng(1)
    accuracy_AS = rng.normal(0, 1, (4_000, 1)) + rng.normal(0, 5, 3) + rng.normal(0, 1.5, (4_000, 3))
    result = ceiling(accuracy_AS, draws=5)
    assert result is not None
    assert (result.architecture_sd, result.noise_sd) == pytest.approx((1, 1.5), rel=0.05)
    assert result.reliability == pytest.approx(1 / (1 + 2.25 / 3), rel=0.05)
    taus = []
    for _ in range(600):
        true_A = rng.normal(0, 1, 27)
        taus.append(kendalltau(true_A, true_A + rng.normal(0, 1.5, (3, 27)).mean(0)).statistic)
    assert result.tau == pytest.approx(np.mean(taus), abs=0.02)
    # The range for 27 architectures, from data whose estimates are exact: a mean and residuals at right angles.
    mean_A, one_A, two_A = np.linalg.qr(np.column_stack([np.ones(27), rng.normal(size=(27, 3))]))[0].T[1:]
    residual_AS = np.outer(one_A, [1, 0, -1]) + np.outer(two_A, [1, -2, 1])
    within = float(np.sum(residual_AS**2)) / 52
    exact_AS = residual_AS + mean_A[:, None] * math.sqrt(26 * (within / 2.25 + within / 3))
    small = ceiling(exact_AS)
    assert small is not None
    assert small.reliability == pytest.approx(1 / 1.75)
    assert (small.low, small.high) == pytest.approx(np.quantile(taus, [0.05, 0.95]), abs=0.05)
    assert small == ceiling(exact_AS)
    assert small.low < small.tau < small.high


def test_the_interval_of_the_reliability_covers() -> None:
    rng = np.random.default_rng(2)
    truth, covered = 1 / (1 + 2.25 / 3), 0
    for _ in range(500):
        accuracy_AS = rng.normal(0, 1, (12, 1)) + rng.normal(0, 3, 3) + rng.normal(0, 1.5, (12, 3))
        result = ceiling(accuracy_AS, draws=1)
        assert result is not None
        covered += result.reliability_low <= truth <= result.reliability_high
    assert 0.925 <= covered / 500 <= 0.975


# --- effects ---


@pytest.mark.parametrize("metric", [wa, ua, wf1])
@pytest.mark.parametrize("units", [1, 2, 5, 9])
def test_a_contrast_of_two_has_the_interval_of_paired(metric: Metric, units: int) -> None:
    skill_AU = np.random.default_rng(units).uniform(0.3, 0.9, (3, units))
    targets_N, predictions_ASN, units_N = answers(units, skill_AU, seeds=3)
    values_VA = leave_one_out(targets_N, predictions_ASN, units_N, metric)
    assert values_VA.shape == (1 + units, 3)
    assert values_VA[0] == pytest.approx([np.mean([metric(targets_N, p) for p in rows]) for rows in predictions_ASN])
    ours = contrast(values_VA, np.array([1.0, 0, -1]), level=0.9, limits=limits_of_difference(metric))
    theirs = paired(targets_N, predictions_ASN[0], predictions_ASN[2], units_N, metric, level=0.9)
    expected = (theirs.difference, theirs.low, theirs.high, theirs.units)
    assert (ours.value, ours.low, ours.high, ours.units) == pytest.approx(expected)


def test_effect_verdicts() -> None:
    assert Effect(0.02, 0.01, 0.03, 6).verdict == "higher"
    assert Effect(-0.02, -0.03, -0.01, 6).verdict == "lower"
    assert Effect(0.02, -0.01, 0.05, 6).verdict == "undecided"
    assert Effect(0.02, 0.01, 0.03, 5).verdict == "no claim"
    assert Effect(1e-17, 1e-17, 1e-17, 6).verdict == "undecided"  # two systems of the same answers


def planted(seed: int, units: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A 3 x 3 grid: layer1 gives +0.10, 0 and -0.10, layer2 nothing, and units differ in what they like at layer1."""
    rng = np.random.default_rng(seed)
    first = dict(zip(BLOCKS, np.array([[0.1], [0], [-0.1]]) + rng.uniform(-0.1, 0.1, (3, units)), strict=True))
    base_U = rng.uniform(0.5, 0.7, units)
    return answers(seed, np.array([base_U + first[d["layer1"]] for d in GRID]))


def test_planted_additive_effects_are_recovered() -> None:
    targets_N, predictions_ASN, units_N = planted(0, units=60)
    values_VA = leave_one_out(targets_N, predictions_ASN, units_N, wa)
    effects = marginal_effects(values_VA, GRID)
    assert list(effects) == ["layer1", "layer2"]
    first, second = effects["layer1"], effects["layer2"]
    assert [first.effects[b].value for b in BLOCKS] == pytest.approx([0.1, 0, -0.1], abs=0.03)
    assert [second.effects[b].value for b in BLOCKS] == pytest.approx([0, 0, 0], abs=0.01)
    assert [first.effects[b].verdict for b in BLOCKS] == ["higher", "undecided", "lower"]
    for slot in effects.values():
        assert sum(e.value for e in slot.effects.values()) == pytest.approx(0)
        assert np.mean(list(slot.means.values())) == pytest.approx(values_VA[0].mean())
        for b, effect in slot.effects.items():
            assert effect.value == pytest.approx(slot.means[b] - values_VA[0].mean())
    json.dumps(dataclasses.asdict(first), allow_nan=False)


def test_the_interval_of_a_marginal_effect_covers_over_ten_units() -> None:
    covered = false = 0
    for i in range(250):
        targets_N, predictions_ASN, units_N = planted(i, units=10)
        effects = marginal_effects(leave_one_out(targets_N, predictions_ASN, units_N, wa), GRID)
        effect = effects["layer1"].effects["FFN"]
        covered += effect.low <= -0.1 <= effect.high
        false += effects["layer2"].effects["MSA"].verdict != "undecided"
    assert 0.92 <= covered / 250 <= 0.985
    assert false / 250 <= 0.08


def test_a_slot_with_one_candidate_has_no_effect() -> None:
    targets_N, predictions_ASN, units_N = answers(0, np.full((2, 7), 0.6))
    values_VA = leave_one_out(targets_N, predictions_ASN, units_N, wa)
    effects = marginal_effects(values_VA, [{"stem": "linear", "layer1": b} for b in "ab"])
    assert effects["stem"].effects["linear"] == Effect(0, 0, 0, 7)


def test_what_is_no_grid_or_no_contrast_is_our_own_mistake() -> None:
    values_VA = np.random.default_rng(0).random((8, 9))
    for designs in (GRID[:-1], (*GRID[:-1], GRID[0]), (*GRID[:-1], {"layer1": "FFN", "layer3": "FFN"})):
        with pytest.raises(AssertionError):
            marginal_effects(values_VA[:, : len(designs)], designs)
    with pytest.raises(AssertionError):
        marginal_effects(values_VA[:, :8], GRID)
    with pytest.raises(AssertionError, match="not a contrast"):
        contrast(values_VA, np.full(9, 1 / 9))


# --- false verdicts ---


def test_equal_seeds_are_seldom_told_apart_and_a_lucky_seed_is() -> None:
    skill_AU = np.random.default_rng(5).uniform(0.5, 0.8, (30, 8))
    targets_N, predictions_ASN, units_N = answers(5, skill_AU, seeds=3)
    equal = a_against_a(targets_N, predictions_ASN, units_N, wa)
    assert equal is not None
    assert (equal.total, equal.rate) == (90, equal.count / 90)
    assert equal.rate <= 0.1
    assert (equal.low, equal.high) == (None, None)
    # One seed that is right far more often, whoever speaks: no interval over units can know.
    lucky_ASN = predictions_ASN.copy()
    lucky_ASN[:, 0] = np.where(np.random.default_rng(6).random(lucky_ASN[:, 0].shape) < 0.6, targets_N, lucky_ASN[:, 0])
    lucky = a_against_a(targets_N, lucky_ASN, units_N, wa)
    assert lucky is not None
    assert lucky.rate > 0.3


@pytest.mark.parametrize("metric", [wa, ua])
def test_the_simulated_null_keeps_to_five_in_a_hundred_however_architectures_differ(metric: Metric) -> None:
    rng = np.random.default_rng(7)
    # 30 points between some, and every unit has its own favourites.
    skill_AU = np.array([0.4, 0.5, 0.6, 0.7])[:, None] + rng.uniform(-0.15, 0.15, (4, 9))
    targets_N, predictions_ASN, units_N = answers(7, skill_AU)
    null = simulated_null(targets_N, predictions_ASN, units_N, metric, draws=300)
    assert null is not None
    assert null.total == 300
    assert null.count > 0
    assert null.rate <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)
    assert null.low is not None
    assert null.high is not None
    assert null.low <= null.rate <= null.high <= 0.12
    # The same two, each on its own side, are told apart: it is the coin that makes them equal.
    assert paired(targets_N, predictions_ASN[3], predictions_ASN[0], units_N, metric).verdict == "better"


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9_999), gap=st.floats(-0.3, 0.3))
def test_a_false_verdict_is_one_that_paired_gives(seed: int, gap: float) -> None:
    # Two seeds of one architecture: the only split is seed 0 against seed 1.
    rng = np.random.default_rng(seed)
    skill_AU = np.array([[0.5 + gap], [0.5]]) + rng.uniform(-0.1, 0.1, (2, 7))
    targets_N, predictions_ASN, units_N = answers(seed, skill_AU, seeds=1)
    as_seeds_ASN = predictions_ASN.transpose(1, 0, 2)
    result = a_against_a(targets_N, as_seeds_ASN, units_N, wa)
    assert result is not None
    verdict = paired(targets_N, predictions_ASN[0], predictions_ASN[1], units_N, wa).verdict
    assert result.count == (verdict != "tie")


def test_where_nothing_is_claimed_nothing_is_false() -> None:
    targets_N, predictions_ASN, units_N = answers(8, np.full((3, 5), 0.6))
    assert a_against_a(targets_N, predictions_ASN, units_N, wa) is None
    assert simulated_null(targets_N, predictions_ASN, units_N, wa) is None
    targets_N, predictions_ASN, units_N = answers(8, np.full((3, 6), 0.6), seeds=1)
    assert a_against_a(targets_N, predictions_ASN, units_N, wa) is None
    assert simulated_null(targets_N, predictions_ASN, units_N, wa, draws=5) is not None
