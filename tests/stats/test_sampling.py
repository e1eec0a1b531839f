"""The variance of a number: its parts by hand, what must not matter, and simulations of what it is for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student_t

from bas.stats import Paired, Predictions, interval, paired, wa
from bas.stats.sampling import BLOCKS, conclude, ratio_degrees, sample


def mean(_: np.ndarray, values_N: np.ndarray) -> float:
    return float(values_N.mean())


def compare(
    a_SN: np.ndarray,
    b_SN: np.ndarray,
    units_N: np.ndarray,
    folds_N: np.ndarray,
    again_RN: np.ndarray | None = None,
    retrained: bool = True,
) -> Paired:
    a, b = Predictions(a_SN, folds_N), Predictions(b_SN, folds_N, again_RN, retrained)
    return paired(np.zeros(len(units_N), int), a, b, units_N, mean)


def draw(
    seed: int, units: int, folds: int, seeds: int, *, unit_sd: float = 1.0, training_sd: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values `(S, N)` of two utterances a unit, with the luck of each fold's training; units and folds."""
    rng = np.random.default_rng(seed)
    units_N = np.repeat(np.arange(units), 2)
    folds_N = units_N % folds
    lucky_SN = rng.normal(0, training_sd, (seeds, folds))[:, folds_N]
    return rng.normal(0, unit_sd, units)[units_N] + lucky_SN, units_N, folds_N


# --- the parts of the variance ---


def test_units_and_trainings_by_hand() -> None:
    # Four units of one utterance in two folds, two seeds. Values of a by seed; b is 0 throughout, its trainings agree.
    a_SN = np.array([[1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 3.0, 6.0]])
    units_N, folds_N = np.arange(4), np.array([0, 0, 1, 1])
    of = compare(a_SN, np.zeros((2, 4)), units_N, folds_N)
    means_U = a_SN.mean(0)
    units = means_U.var(ddof=1) / 4
    # Fold 0 changes the mean of all four by (1 + 1) / 4 from seed to seed, fold 1 by (0 + 2) / 4; divided by 2 seeds.
    trainings = (0.5**2 / 2 + 0.5**2 / 2) / 2
    # Unit by unit, the seeds change it by 1/4, 1/4, 0 and 2/4.
    cells = (0.25**2 + 0.25**2 + 0 + 0.5**2) / 2 / 2
    shared = 4 / 3 * (trainings - cells)
    assert of.difference == means_U.mean()
    assert of.se == pytest.approx(math.sqrt(units + shared))
    # Satterthwaite: the units have 3 degrees, but for the part of the trainings in them, which has 1 as two folds have;
    # trainings have 2 folds x (2 - 1).
    share = shared * (1 / 4) / (1 / 2 - 1 / 4) / units
    inverse = 1 / 3 + share * (1 / 1 - 1 / 3)
    assert of.degrees == pytest.approx((units + shared) ** 2 / (units**2 * inverse + shared**2 / 2))
    assert of.high - of.difference == pytest.approx(student_t.ppf(0.975, of.degrees) * of.se)
    assert of.p == pytest.approx(2 * student_t.sf(of.difference / of.se, of.degrees))
    assert of.seeds_se == pytest.approx(math.sqrt(trainings))


def test_where_each_unit_is_a_fold_trainings_add_nothing() -> None:
    values_SN, units_N, _ = draw(0, 9, 1, 3, training_sd=0.0)
    values_SN = values_SN + np.random.default_rng(1).normal(0, 2, (3, 9))[:, units_N]
    of = compare(values_SN, np.zeros((3, 18)), units_N, units_N)
    means_U = values_SN.mean(0)[::2]
    assert of.se == pytest.approx(means_U.std(ddof=1) / 3)
    assert of.degrees == pytest.approx(8)


def test_seeds_that_differ_within_units_alone_add_nothing_on_the_whole() -> None:
    """What a seed does to each unit apart is in the units' spread, and must not count twice."""
    ratios = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        units_N = np.arange(30)
        a_SN = rng.normal(0, 1, (3, 30))
        of = compare(a_SN, np.zeros((3, 30)), units_N, units_N % 5)
        ratios.append(of.se**2 / (1 / 3 / 30))
    assert np.mean(ratios) == pytest.approx(1, abs=0.15)


def test_the_luck_of_a_training_shared_by_many_speakers_is_no_verdict() -> None:
    """Five folds of 18 speakers; every training of a is better or worse for all its speakers at once."""
    rng = np.random.default_rng(3)
    units_N = np.arange(90)
    folds_N = units_N % 5
    luck_SF = np.array([[3.0, 1, -2, 3, 2], [2, -3, 3, 1, 1], [-1, 3, 2, -1, 3]])
    a_SN = rng.normal(0, 1, 90) + luck_SF[:, folds_N]
    units_alone = interval(lambda kept_N: float(a_SN[:, kept_N].mean()), units_N, ())
    assert units_alone.low > 0, "the units alone would call it better"
    of = compare(a_SN, np.zeros((3, 90)), units_N, folds_N)
    assert of.low < 0 < of.high
    assert of.verdict == "tie"


def test_repeats_of_a_row_without_seeds_are_its_noise_and_never_its_score() -> None:
    values_SN, units_N, folds_N = draw(2, 20, 5, 3)
    linear_SN = values_SN[:1] * 0
    again_RN = np.random.default_rng(0).normal(-50, 3, (4, 5))[:, folds_N]
    plain = compare(values_SN, np.repeat(linear_SN, 2, 0), units_N, folds_N)
    noisy = compare(values_SN, linear_SN, units_N, folds_N, again_RN)
    assert noisy.difference == plain.difference
    assert noisy.se > plain.se
    # All of a fold's units share a training: T - I of one model, not a mean of four.
    per_fold = np.var(again_RN[:, [np.flatnonzero(folds_N == f)[0] for f in range(5)]], axis=0, ddof=1)
    expected = 20 / 19 * (per_fold.sum() / 25 - per_fold.sum() * 4 / 400)
    assert noisy.se**2 - plain.se**2 == pytest.approx(expected)
    assert noisy.seeds_se == plain.seeds_se, "more seeds would not make it smaller"


# --- few trainings ---


def test_with_one_seed_whole_folds_are_left_out() -> None:
    values_SN, units_N, folds_N = draw(4, 20, 5, 1, training_sd=2.0)
    of = compare(values_SN, np.zeros((1, 40)), units_N, folds_N)
    of_folds = compare(values_SN, np.zeros((1, 40)), folds_N, folds_N)
    assert (of.units, of.by_fold, of_folds.by_fold) == (5, True, False)
    assert (of.low, of.high, of.p) == pytest.approx((of_folds.low, of_folds.high, of_folds.p))


def test_seeds_that_share_a_training_are_one_training() -> None:
    values_SN, units_N, folds_N = draw(5, 20, 5, 3)
    of = compare(values_SN, np.zeros((3, 40)), units_N, folds_N, retrained=False)
    assert (of.units, of.by_fold) == (5, True)


def test_units_that_cross_folds_join_them() -> None:
    """Of a split by utterance with one seed nothing can be said; with several seeds it can."""
    units_N = np.repeat(np.arange(6), 4)
    folds_N = np.tile(np.arange(4), 6)
    values_SN = np.random.default_rng(0).normal(1, 1, (3, 24))
    one = compare(values_SN[:1], np.zeros((1, 24)), units_N, folds_N)
    assert (one.units, one.verdict, one.p) == (1, "no claim", 1)
    assert (one.low, one.high) == (-math.inf, math.inf)
    assert compare(values_SN, np.zeros((3, 24)), units_N, folds_N).units == 6


def test_one_split_needs_two_seeds() -> None:
    values_SN, units_N, folds_N = draw(6, 50, 1, 4, training_sd=1.0)
    assert compare(values_SN[:1], np.zeros((1, 100)), units_N, folds_N).verdict == "no claim"
    of = compare(values_SN, np.zeros((4, 100)), units_N, folds_N)
    luck = np.var(values_SN.mean(1), ddof=1) / 4
    assert of.se**2 == pytest.approx(values_SN.mean(0)[::2].var(ddof=1) / 50 + luck)
    assert of.degrees < 8


# --- units ---


def test_unequal_units_have_fewer_degrees() -> None:
    assert ratio_degrees((7, 7, 7, 7)) == 3
    even, uneven = ratio_degrees((4, 5, 5, 5, 5, 6)), ratio_degrees((1, 1, 2, 4, 8, 30))
    assert 4.5 < even <= 5
    assert 1 < uneven < 3
    assert ratio_degrees((1, 1, 2, 4, 8, 30)) == uneven, "the draws have a seed of their own"


def test_very_many_units_are_left_out_in_blocks() -> None:
    rng = np.random.default_rng(0)
    targets_N, a_N, b_N = (rng.integers(0, 2, 3000) for _ in range(3))
    units_N = np.repeat(np.arange(1500), 2)
    calls = 0

    def estimate(k_N: np.ndarray) -> float:
        nonlocal calls
        calls += 1
        return wa(targets_N[k_N], a_N[k_N]) - wa(targets_N[k_N], b_N[k_N])

    of = interval(estimate, units_N, ())
    assert calls == 1 + BLOCKS
    # The standard error of a mean difference of hits, by the central limit theorem over units.
    of_unit_U = ((targets_N == a_N).astype(float) - (targets_N == b_N)).reshape(1500, 2).mean(1)
    error = of_unit_U.std(ddof=1) / math.sqrt(1500)
    assert (of.high - of.low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    assert of.low < of.value < of.high
    assert interval(estimate, units_N, ()) == of


@pytest.mark.parametrize(
    ("units", "verdict", "p"), [(5, "no claim", 1 / 16), (6, "better", 1 / 32), (1, "no claim", 1)]
)
def test_without_any_spread_the_number_of_units_decides(units: int, verdict: str, p: float) -> None:
    """All right against all wrong: no spread to judge by, so p is that of a sign-flip test."""
    units_N = np.repeat(np.arange(units), 3)
    of = compare(np.ones((2, 3 * units)), np.zeros((2, 3 * units)), units_N, units_N)
    assert (of.verdict, of.p) == (verdict, p)
    assert math.isinf(of.high) == (verdict == "no claim")


# --- statistics of several rows ---


def test_a_choice_within_the_estimate_is_made_again_without_each_unit() -> None:
    """Row a is the better one only thanks to unit 0: without it b is taken."""
    a_N, b_N = np.array([1, 1, 1, 0, 0, 0, 1, 0.0]), np.array([0, 0, 1, 0, 1, 0, 0, 1.0])
    units_N = np.repeat(np.arange(4), 2)
    of = interval(lambda k_N: max(a_N[k_N].mean(), b_N[k_N].mean()), units_N, ())
    pseudo_U = 4 * 4 / 8 - 3 * np.array([3 / 6, 3 / 6, 4 / 6, 3 / 6])  # b, a or b, a, a
    assert of.value == 4 / 8
    assert (of.high - of.low) / 2 == pytest.approx(student_t.ppf(0.975, 3) * pseudo_U.std(ddof=1) / 2)


def test_several_numbers_at_once_are_as_each_alone() -> None:
    values_SN, units_N, folds_N = draw(7, 12, 3, 3, training_sd=1.0)
    rows = Predictions(np.stack([values_SN, values_SN**2], axis=2), folds_N)

    def both(kept_N: np.ndarray, rows_SNH: np.ndarray) -> np.ndarray:
        return np.array(rows_SNH[:, kept_N].mean((0, 1)))

    sampled = sample(both, units_N, (rows,))
    of = conclude(sampled.at(np.array([1.0, -1.0])))
    alone = interval(
        lambda k_N, x_SN: float((x_SN - x_SN**2)[:, k_N].mean()), units_N, (Predictions(values_SN, folds_N),)
    )
    assert (of.value, of.low, of.high) == pytest.approx((alone.value, alone.low, alone.high))


def test_a_number_that_is_not_finite_somewhere_has_no_interval() -> None:
    units_N = np.arange(6)
    of = interval(lambda k_N: math.nan if not k_N[0] else 1.0, units_N, ())
    assert (of.value, of.low, of.high) == (1, -math.inf, math.inf)


# --- what it is for; benchmarks/verdicts.py has many more ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("units", "ratio", "folds", "seeds"), [(24, 1, 5, 3), (10, 10, 5, 3), (91, 1, 5, 3), (24, 1, 24, 3), (24, 1, 5, 1)]
)
def test_intervals_cover_and_verdicts_are_rarely_false(units: int, ratio: int, folds: int, seeds: int) -> None:
    """Units and trainings have a deviation of 3 each; of units alone, 63 % would cover with 91 units."""
    rng, covered, draws = np.random.default_rng(units + ratio + folds), 0, 400
    units_N = np.repeat(np.arange(units), np.rint(np.geomspace(1, ratio, units)).astype(int))
    folds_N = units_N % folds
    for _ in range(draws):
        a_SN = rng.normal(0, 3, units)[units_N] + rng.normal(0, 3, (seeds, folds))[:, folds_N]
        of = compare(a_SN, np.zeros((seeds, len(units_N))), units_N, folds_N)
        covered += of.low <= 0 <= of.high
        assert (of.verdict == "tie") == (of.low <= 0 <= of.high)
    assert 0.92 <= covered / draws <= 0.98
