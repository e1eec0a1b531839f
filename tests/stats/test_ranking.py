"""The audit's statistics against hand computations, brute force and simulations whose truth is known."""

# mypy: disable-error-code="arg-type,comparison-overlap"

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from bas.stats import Estimate, Metric, Predictions, limits_of_difference, paired, ua, wa, wf1
from bas.stats.ranking import (
    Effect,
    ceiling,
    contrast,
    halves,
    marginal_effects,
    over_searches,
    percentiles,
    regrets,
    sample_all,
    shrink,
    split_half,
    tau,
    taus,
)
from bas.stats.sampling import Sampled

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


def picked(*numbers: int, seeds: int = 2) -> np.ndarray:
    """One system, `(1, F, S)`: in each fold, all seeds pick the same."""
    return np.array(numbers)[None, :, None] + np.zeros((1, 1, seeds), int)


def test_percentile_by_hand() -> None:
    truth_A = np.array([0.5, 0.7, 0.7, 0.9, 0.1 + 0.2 + 0.4])  # the last is 0.7 but for the last bits
    accuracy_AS = np.column_stack([truth_A, truth_A])
    assert percentiles(accuracy_AS, picked(0, 1, 2, 3, 4)).tolist() == [[p, p] for p in (0.0, 0.5, 0.5, 1.0, 0.5)]
    # Seed 0 is judged by seed 1 and the other way round; draws are averaged.
    turned_AS = np.column_stack([truth_A, -truth_A])
    assert percentiles(turned_AS, picked(3)).tolist() == [[0.0, 1.0]]
    assert percentiles(accuracy_AS, np.concatenate([picked(0), picked(3)])).tolist() == [[0.5, 0.5]]
    with pytest.raises(AssertionError):
        percentiles(accuracy_AS[:, :1], picked(0, seeds=1))


@settings(max_examples=50, deadline=None)
@given(truth=st.lists(st.integers(0, 9), min_size=2, max_size=30))
def test_a_random_pick_expects_the_percentile_one_half(truth: list[int]) -> None:
    accuracy_AS = np.array([truth, truth]).T / 10
    assert percentiles(accuracy_AS, picked(*range(len(truth)))).mean() == pytest.approx(0.5)


def test_tau() -> None:
    truth_A = np.array([0.1, 0.2, 0.3, 0.4])
    scores_FSA = np.array([[[1.0, 2, 3, 4], [4.0, 3, 2, 1]], [[5.0, 5, 5, 5], [2.0, 1, 3, 4]]])
    assert taus(truth_A[:, None], scores_FSA) == pytest.approx(np.array([[1, -1], [0, 4 / 6]]))
    # A truth without differences is agreed with by nobody.
    assert tau(scores_FSA[0, 0], np.array([0.1 + 0.2, 0.3, 0.3, 0.3])) == 0


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


# --- shrunken means, regret ---


def test_the_best_shrunken_mean_is_as_good_as_it_says_and_the_best_mean_is_not() -> None:
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(600):
        true_A = rng.normal(88, 0.9, 27)
        accuracy_AS = true_A[:, None] + rng.normal(0, 1.3, (27, 3))
        mean_A, of = accuracy_AS.mean(1), ceiling(accuracy_AS, draws=1)
        assert of is not None
        shrunken_A = shrink(mean_A, of.reliability)
        assert shrunken_A.mean() == pytest.approx(mean_A.mean())
        best = mean_A.argmax()
        gaps.append((shrunken_A[best] - true_A[best], mean_A[best] - true_A[best]))
    shrunken, raw = np.mean(gaps, axis=0)
    assert abs(shrunken) <= 0.1
    assert raw >= 0.5


def test_regret_by_hand() -> None:
    accuracy_AS = np.array([0.5, 0.7, 0.9])[:, None] + np.array([0.0, 0.05, -0.05])
    assert regrets(accuracy_AS, picked(0, 1, 2, seeds=3)) == pytest.approx(np.array([[0.4] * 3, [0.2] * 3, [0.0] * 3]))
    # Means 0.9, 0.6, 0.6 over two seeds: MS_A 0.06, MS_E 0.01, so of one seed's variance 5 of 7 parts are true.
    noise_AS = np.array([[0.9, 0.9], [0.6, 0.6], [0.6, 0.6]]) + np.array([[1, -1], [-1, 1], [0, 0]]) * math.sqrt(0.005)
    for s, other in ((0, 1), (1, 0)):
        best = noise_AS[:, other].mean() + 5 / 7 * (noise_AS[0, other] - noise_AS[:, other].mean())
        assert regrets(noise_AS, picked(1))[0, s] == pytest.approx(best - noise_AS[1, other])
        assert regrets(noise_AS, picked(0))[0, s] < 0, "no worse than the best that can be expected"


def test_the_regret_of_equal_architectures_is_near_zero() -> None:
    rng = np.random.default_rng(0)
    regret = [
        regrets(88 + rng.normal(0, 0.5, 3) + rng.normal(0, 1.3, (27, 3)), rng.integers(27, size=(1, 1, 3))).mean()
        for _ in range(300)
    ]
    assert -0.1 <= np.mean(regret) <= 0.3, "the largest mean is 1.5 above the others"


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_the_regret_of_a_pick_is_that_against_the_best_that_can_be_known(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    ours, known, naive = [], [], []
    for _ in range(400):
        true_A = np.sort(rng.normal(0, 1, 27))
        accuracy_AS = true_A[:, None] + rng.normal(0, 1, (27, seeds))
        ours.append(regrets(accuracy_AS, picked(4, 6, seeds=seeds)).mean())
        others = [np.delete(accuracy_AS, s, axis=1).mean(1) for s in range(seeds)]
        known.append(np.mean([true_A[other_A.argmax()] for other_A in others]) - true_A[[4, 6]].mean())
        naive.append(np.mean([other_A.max() - other_A[[4, 6]].mean() for other_A in others]))
    assert np.mean(ours) == pytest.approx(np.mean(known), abs=0.15)
    assert np.mean(naive) > np.mean(known) + 0.3


# --- intervals over searches ---


def searched(rng: np.random.Generator, true_A: np.ndarray, same: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Accuracies, those without each of 5 folds, and scores `(F, S, A)` of searches, whose noise a fold shares."""
    size = len(true_A)
    each_AFS = true_A[:, None, None] + rng.normal(0, 1, (size, 5, 1)) + rng.normal(0, 2.5, (size, 5, 3))
    scores_FSA = true_A + rng.normal(0, 1, (5, 1, size)) + rng.normal(0, 0.5, (5, 3, size))
    if same:  # every search scores by one wrong idea
        scores_FSA = np.zeros((5, 3, 1)) + np.sin(np.arange(size))
    return each_AFS.mean(1), np.array([np.delete(each_AFS, f, axis=1).mean(1) for f in range(5)]), scores_FSA


@pytest.mark.parametrize(("same", "least"), [(False, 0.92), (True, 0.84)])
def test_the_intervals_over_searches_cover(same: bool, least: float) -> None:
    """Also where all searches agree: then all that varies is the ranking that judges them."""
    rng, true_A = np.random.default_rng(0), np.random.default_rng(1).normal(0, 1, 12)
    found: dict[str, list[Estimate]] = {"percentile": [], "regret": [], "tau": []}
    for _ in range(120):
        accuracy_AS, without_FAS, scores_FSA = searched(rng, true_A, same)
        picks_DFS = scores_FSA.argmax(2)[None]
        percentile = over_searches(partial(percentiles, picks_DFS=picks_DFS), accuracy_AS, without_FAS, (0.0, 1.0))
        found["percentile"].append(percentile)
        found["regret"].append(over_searches(partial(regrets, picks_DFS=picks_DFS), accuracy_AS, without_FAS))
        found["tau"].append(over_searches(partial(taus, scores_FSA=scores_FSA), accuracy_AS, without_FAS))
    for name, estimates in found.items():
        expected = np.mean([e.value for e in estimates])
        covered = np.mean([e.low <= expected <= e.high for e in estimates])
        assert covered >= least, name
        assert np.isfinite([e.high for e in estimates]).all(), name


def test_too_few_folds_have_no_interval() -> None:
    accuracy_AS, without_FAS, scores_FSA = searched(np.random.default_rng(0), np.arange(6.0), same=False)
    of = over_searches(partial(taus, scores_FSA=scores_FSA[:3]), accuracy_AS, without_FAS[:3])
    assert (of.low, of.high) == (-math.inf, math.inf)
    assert of.value == taus(accuracy_AS, scores_FSA[:3]).mean()


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
    assert ceiling(equal_AS) == type(perfect)(0, 0, 0, 0, pytest.approx(0, abs=1e-12), 0, 0, 0, None)


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


def test_what_may_be_noise_alone_does_not_rank() -> None:
    rng = np.random.default_rng(3)
    noise = [ceiling(rng.normal(0, 1, (27, 3)), draws=1) for _ in range(200)]
    assert np.mean([of.ranks for of in noise if of]) <= 0.03
    sure = [ceiling(rng.normal(0, 1, (27, 1)) + rng.normal(0, 1, (27, 4)), draws=1) for _ in range(50)]
    assert np.mean([of.ranks for of in sure if of]) >= 0.95
    assert {of.enough_seeds for of in sure if of} <= {2, 3, 4}
    assert {of.enough_seeds for of in noise if of and of.reliability == 0} == {None}


def test_so_many_seeds_would_rank() -> None:
    """Where 3 seeds do not, `enough_seeds` of them do in about half of the cases, as it goes by what is expected."""
    rng, few, enough = np.random.default_rng(4), [], []
    for _ in range(300):
        true_A, noise_AS = rng.normal(0, 0.6, 27), rng.normal(0, 1.3, (27, 16))
        of = ceiling(true_A[:, None] + noise_AS[:, :3], draws=1)
        assert of is not None
        if of.ranks or not of.enough_seeds:
            continue
        assert of.enough_seeds > 3
        few.append(of)
        more = ceiling(true_A[:, None] + noise_AS[:, : of.enough_seeds], draws=1)
        assert more is not None
        enough.append(more.ranks)
    assert len(few) >= 50
    assert 0.4 <= np.mean(enough) <= 0.9


# --- effects ---


def all_of(
    targets_N: np.ndarray, predictions_ASN: np.ndarray, units_N: np.ndarray, metric: Metric, folds: int = 5
) -> Sampled:
    return sample_all(targets_N, predictions_ASN, units_N % folds, units_N, metric)


@pytest.mark.parametrize("metric", [wa, ua, wf1])
@pytest.mark.parametrize("units", [1, 2, 5, 9])
def test_a_contrast_of_two_has_the_interval_of_paired(metric: Metric, units: int) -> None:
    """With one seed, where both take the folds as units; with several, `paired` takes trainings as independent."""
    skill_AU = np.random.default_rng(units).uniform(0.3, 0.9, (3, units))
    targets_N, predictions_ASN, units_N = answers(units, skill_AU, seeds=1)
    sampled = all_of(targets_N, predictions_ASN, units_N, metric)
    assert sampled.whole == pytest.approx([np.mean([metric(targets_N, p) for p in rows]) for rows in predictions_ASN])
    ours = contrast(sampled, np.array([1.0, 0, -1]), level=0.9, limits=limits_of_difference(metric))
    first, last = (Predictions(predictions_ASN[a], units_N % 5) for a in (0, 2))
    theirs = paired(targets_N, first, last, units_N, metric, level=0.9)
    expected = (theirs.difference, theirs.low, theirs.high, theirs.p, theirs.units)
    assert (ours.value, ours.low, ours.high, ours.p, ours.units) == pytest.approx(expected)
    assert ours.by_fold == theirs.by_fold == (units > 5)


def test_effect_verdicts() -> None:
    assert Effect(0.02, 0.01, 0.03, 0.01, 4, False).verdict == "higher"
    assert Effect(-0.02, -0.03, -0.01, 0.01, 4, False).verdict == "lower"
    assert Effect(0.02, -0.01, 0.05, 0.2, 4, False).verdict == "undecided"
    assert Effect(0.02, 0.01, 0.03, 0.01, 3, False).verdict == "no claim"
    assert Effect(1e-17, 1e-17, 1e-17, 1.0, 4, False).verdict == "undecided"  # two systems of the same answers


def planted(seed: int, units: int, of_training: float = 0.03) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A 3 x 3 grid: layer1 gives +0.10, 0 and -0.10, layer2 nothing, and units differ in what they like at layer1.

    of_training: deviation of what one training of an architecture does to all units of its fold.
    """
    rng = np.random.default_rng(seed)
    first = dict(zip(BLOCKS, np.array([[0.1], [0], [-0.1]]) + rng.uniform(-0.1, 0.1, (3, units)), strict=True))
    base_U = rng.uniform(0.5, 0.7, units)
    skill_AU = np.array([base_U + first[d["layer1"]] for d in GRID])
    luck_ASF = rng.normal(0, of_training, (len(GRID), 3, 5))
    parts = [answers(1000 * seed + s, skill_AU + luck_ASF[:, s, np.arange(units) % 5], seeds=1) for s in range(3)]
    units_N = np.sort(parts[0][2])
    order = [np.argsort(units, kind="stable") for _, _, units in parts]
    # Right or wrong is all that WA sees, so the targets of every seed may be 0.
    rows = [(p[:, 0] != t)[:, o] for (t, p, _), o in zip(parts, order, strict=True)]
    return np.zeros(len(units_N), int), np.stack(rows, axis=1).astype(int), units_N


def test_planted_additive_effects_are_recovered() -> None:
    targets_N, predictions_ASN, units_N = planted(0, units=60, of_training=0.0)
    sampled = all_of(targets_N, predictions_ASN, units_N, wa)
    effects = marginal_effects(sampled, GRID)
    assert list(effects) == ["layer1", "layer2"]
    first, second = effects["layer1"], effects["layer2"]
    assert [first.effects[b].value for b in BLOCKS] == pytest.approx([0.1, 0, -0.1], abs=0.03)
    assert [second.effects[b].value for b in BLOCKS] == pytest.approx([0, 0, 0], abs=0.01)
    assert [first.effects[b].verdict for b in BLOCKS] == ["higher", "undecided", "lower"]
    for slot in effects.values():
        assert sum(e.value for e in slot.effects.values()) == pytest.approx(0)
        assert np.mean(list(slot.means.values())) == pytest.approx(sampled.whole.mean())
        for b, effect in slot.effects.items():
            assert effect.value == pytest.approx(slot.means[b] - sampled.whole.mean())
    json.dumps(dataclasses.asdict(first), allow_nan=False)


def test_the_interval_of_a_marginal_effect_covers_over_ten_units() -> None:
    covered = false = 0
    for i in range(200):
        targets_N, predictions_ASN, units_N = planted(i, units=10, of_training=0.06)
        effects = marginal_effects(all_of(targets_N, predictions_ASN, units_N, wa), GRID)
        effect = effects["layer1"].effects["FFN"]
        covered += effect.low <= -0.1 <= effect.high
        false += effects["layer2"].effects["MSA"].verdict != "undecided"
    assert 0.92 <= covered / 200 <= 0.99
    assert false / 200 <= 0.08


def test_a_slot_with_one_candidate_has_no_effect() -> None:
    targets_N, predictions_ASN, units_N = answers(0, np.full((2, 7), 0.6))
    sampled = all_of(targets_N, predictions_ASN, units_N, wa, folds=7)
    effects = marginal_effects(sampled, [{"stem": "linear", "layer1": b} for b in "ab"])
    of = effects["stem"].effects["linear"]
    assert (of.value, of.low, of.high, of.p, of.units) == (0, 0, 0, 1, 7)


def test_what_is_no_grid_or_no_contrast_is_our_own_mistake() -> None:
    targets_N, predictions_ASN, units_N = answers(0, np.full((9, 4), 0.6))
    sampled = all_of(targets_N, predictions_ASN, units_N, wa)
    fewer = all_of(targets_N, predictions_ASN[:8], units_N, wa)
    for designs in (GRID[:-1], (*GRID[:-1], GRID[0]), (*GRID[:-1], {"layer1": "FFN", "layer3": "FFN"})):
        with pytest.raises(AssertionError):
            marginal_effects(fewer if len(designs) == 8 else sampled, designs)
    with pytest.raises(AssertionError):
        marginal_effects(fewer, GRID)
    with pytest.raises(AssertionError, match="not a contrast"):
        contrast(sampled, np.full(9, 1 / 9))
