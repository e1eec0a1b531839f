"""Sentences, power, many comparisons, and rows against themselves."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import t as student_t

from bas.stats import MIN_UNITS, Paired, Predictions, a_against_a, holm, paired, verdict_sentence, wa


def result(difference: float, low: float, high: float, p: float, units: int = 10) -> Paired:
    return Paired(difference, low, high, p, 0.01, 12.0, units, False, (3, 3), 0.006)


def test_verdict_sentences() -> None:
    tie = result(0.006, -0.009, 0.021, 0.41)
    better = dataclasses.replace(result(0.02, 0.01, 0.03, 0.002), level=0.9)
    worse = result(-0.02, -0.03, -0.0001, 0.01, 280)
    rows = ("BAS-4", "the 4-layer transformer")
    assert verdict_sentence(*rows, "emodb", "WA", tie, "speaker") == (
        "BAS-4 is not distinguishable from the 4-layer transformer on emodb "
        "(WA difference +0.6 points, 95 % interval -0.9 to +2.1, 10 speakers, p 0.41)."
    )
    assert verdict_sentence(*rows, "emodb", "UA", better, "speaker") == (
        "BAS-4 is better than the 4-layer transformer on emodb "
        "(UA difference +2.0 points, 90 % interval +1.0 to +3.0, 10 speakers, p 0.002)."
    )
    assert verdict_sentence(*rows, "meld", "WF1", worse, "dialogue") == (
        "BAS-4 is worse than the 4-layer transformer on meld "
        "(WF1 difference -2.0 points, 95 % interval -3.0 to -0.0, 280 dialogues, p 0.01)."
    )
    few = dataclasses.replace(tie, units=3)
    assert verdict_sentence(*rows, "three", "WA", few, "session") == (
        "BAS-4 against the 4-layer transformer on three (WA difference +0.6 points, 95 % interval -0.9 to +2.1): "
        "no significance is claimed with 3 sessions (needs 4)."
    )
    one = dataclasses.replace(tie, units=1, by_fold=True, low=-math.inf, high=math.inf, p=1.0, seeds=(1, 1))
    assert verdict_sentence(*rows, "one", "WA", one, "speaker") == (
        "BAS-4 against the 4-layer transformer on one (WA difference +0.6 points, no interval): "
        "no significance is claimed with 1 fold of one training (needs 4, or two seeds)."
    )
    folds = dataclasses.replace(tie, units=5, by_fold=True, seeds=(1, 1))
    assert "5 folds of one training, p 0.41" in verdict_sentence(*rows, "emodb", "WA", folds, "speaker")
    tuned = dataclasses.replace(folds, seeds=(3, 3))
    assert "5 folds, p 0.41" in verdict_sentence(*rows, "emodb", "WA", tuned, "speaker")


def test_the_interval_decides_from_four_units_on() -> None:
    sure = result(0.02, 0.01, 0.03, 0.04)
    assert sure.verdict == "better"
    assert dataclasses.replace(sure, low=-0.001, p=0.051).verdict == "tie"
    assert dataclasses.replace(sure, difference=-0.02, low=-0.03, high=-0.01).verdict == "worse"
    assert dataclasses.replace(sure, units=MIN_UNITS).verdict == "better"
    assert dataclasses.replace(sure, units=MIN_UNITS - 1).verdict == "no claim"
    assert dataclasses.replace(sure, low=-math.inf, high=math.inf).verdict == "no claim"


def test_five_sessions_can_have_a_verdict() -> None:
    rng = np.random.default_rng(0)
    units_N, targets_N = np.repeat(np.arange(5), 40), rng.integers(0, 4, 200)
    good, bad = (np.where(rng.random((3, 200)) < s, targets_N, rng.integers(0, 4, (3, 200))) for s in (0.7, 0.4))
    of = paired(targets_N, Predictions(good, units_N), Predictions(bad, units_N), units_N, wa)
    assert of.degrees == pytest.approx(4)
    assert (of.units, of.verdict) == (5, "better")


def test_what_could_have_been_seen() -> None:
    of = result(0.0, -0.02, 0.02, 1.0)
    quantiles = student_t.ppf(0.975, 12) + student_t.ppf(0.8, 12)
    assert of.detectable == pytest.approx(0.01 * quantiles)
    assert of.detectable_with(math.inf) == pytest.approx(0.008 * quantiles), "the units' part stays"
    assert of.detectable_with(2) == pytest.approx(math.sqrt(0.01**2 - 0.006**2 / 2) * quantiles)
    assert dataclasses.replace(of, units=3).detectable is None


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def lucky(seed: int, seeds: int) -> tuple[np.ndarray, Predictions, np.ndarray]:
    """A row whose trainings are each better or worse for all of their fold's 12 speakers."""
    rng = np.random.default_rng(seed)
    units_N = np.repeat(np.arange(60), 10)
    folds_N, targets_N = units_N % 5, rng.integers(0, 4, 600)
    skill_SN = 0.6 + rng.normal(0, 0.1, (seeds, 5))[:, folds_N]
    rows_SN = np.where(rng.random((seeds, 600)) < skill_SN, targets_N, (targets_N + 1) % 4)
    return targets_N, Predictions(rows_SN, folds_N), units_N


def test_a_row_is_rarely_told_from_itself() -> None:
    count = total = 0
    for seed in range(40):
        targets_N, row, units_N = lucky(seed, 4)
        check = a_against_a(targets_N, [row], units_N, wa)
        assert check is not None
        assert check.total == 4, "each seed against the three others"
        count, total = count + check.count, total + check.total
    assert count / total <= 0.1, "5 % are meant; of units alone, more than half"


def test_a_seed_that_is_another_system_is_told_apart() -> None:
    targets_N, row, units_N = lucky(0, 4)
    broken_SN = row.rows_SN.copy()
    broken_SN[2] = (targets_N + 1) % 4
    check = a_against_a(targets_N, [Predictions(broken_SN, row.folds_N)], units_N, wa)
    assert check is not None
    assert check.count >= 1


def test_the_check_needs_three_trainings() -> None:
    targets_N, row, units_N = lucky(0, 4)
    two = Predictions(row.rows_SN[:2], row.folds_N)
    shared = Predictions(row.rows_SN, row.folds_N, retrained=False)
    linear = Predictions(row.rows_SN[:1], row.folds_N, again_RN=row.rows_SN)
    assert a_against_a(targets_N, [two, shared, linear], units_N, wa) is None
    assert a_against_a(targets_N, [row], units_N % 3, wa) is None, "too few units"


def test_seeds_that_agree_but_for_the_last_bits_are_not_told_apart() -> None:
    units_N = np.repeat(np.arange(8), 3)
    values_N = np.random.default_rng(0).normal(0, 1, 24)
    rows_SN = np.stack([values_N, values_N + 1e-16, values_N - 1e-16, values_N])
    check = a_against_a(np.zeros(24), [Predictions(rows_SN, units_N)], units_N, lambda _, p_N: float(p_N.mean()))
    assert check is not None
    assert (check.count, check.total) == (0, 4)
