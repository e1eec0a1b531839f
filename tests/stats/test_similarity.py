"""CKA against sums written out, its invariances, what chance gives, and SVCCA on planted subspaces."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from refusals import refusal
from scipy.linalg import hadamard
from scipy.stats import ortho_group

from bas.stats.similarity import cka, cka_by_chance, standardise, svcca

BOTH = ("debiased", "plain")


def related(n: int, d: int, e: int, shared: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two noisy views of the same few sources."""
    rng = np.random.default_rng(seed)
    source_NK = rng.standard_normal((n, shared))
    views = [source_NK @ rng.standard_normal((shared, dims)) + rng.standard_normal((n, dims)) for dims in (d, e)]
    return views[0] + 3, views[1]


def naive(x_ND: np.ndarray, y_NE: np.ndarray) -> dict[str, float]:
    """Both estimators of HSIC from their definitions: U-statistics over ordered tuples of different utterances."""
    k, l_ = x_ND @ x_ND.T, y_NE @ y_NE.T
    n = len(k)

    def unbiased(a: np.ndarray, b: np.ndarray) -> float:
        two = np.mean([a[i, j] * b[i, j] for i, j in itertools.permutations(range(n), 2)])
        three = np.mean([a[i, j] * b[i, q] for i, j, q in itertools.permutations(range(n), 3)])
        four = np.mean([a[i, j] * b[q, r] for i, j, q, r in itertools.permutations(range(n), 4)])
        return float(two - 2 * three + four)

    def biased(a: np.ndarray, b: np.ndarray) -> float:
        h = np.eye(n) - 1 / n
        return float(np.trace(a @ h @ b @ h)) / (n - 1) ** 2

    return {
        name: hsic(k, l_) / np.sqrt(hsic(k, k) * hsic(l_, l_))
        for name, hsic in (("debiased", unbiased), ("plain", biased))
    }


@pytest.mark.parametrize(("n", "d", "e"), [(8, 3, 2), (7, 20, 4), (6, 9, 11), (10, 1, 1)])
def test_agrees_with_the_definitions_written_out(n: int, d: int, e: int) -> None:
    x_ND, y_NE = related(n, d, e)
    expected = naive(x_ND, y_NE)
    assert cka(x_ND, y_NE) == pytest.approx(expected, abs=1e-12)
    assert cka(y_NE, x_ND) == pytest.approx(expected, abs=1e-12)


def test_a_small_matrix_by_hand() -> None:
    """x = -1, 1, 0, 0 and y = -1, 0, 1, 0: K = xxᵀ, L = yyᵀ, both of trace 2.

    Plain: tr(KL) = (x·y)² = 1 and tr(KK) = tr(LL) = 4, so 1/4.
    Debiased: off the diagonal K holds -1 at (1, 2) alone and L -1 at (1, 3) alone: tr(K̃L̃) = 0, the sums are -2 and -2,
    1ᵀK̃L̃1 = 1. HSIC(K, L) ~ 0 + 4/6 - 2/2 * 1 = -1/3; HSIC(K, K) ~ 2 + 4/6 - 2/2 * 2 = 2/3. So -1/2.
    """
    x_ND, y_NE = np.array([[-1.0], [1], [0], [0]]), np.array([[-1.0], [0], [1], [0]])
    assert cka(x_ND, y_NE) == pytest.approx({"plain": 1 / 4, "debiased": -1 / 2}, abs=1e-12)


@pytest.mark.parametrize("d", [5, 60])  # fewer and more than utterances
def test_invariances(d: int) -> None:
    x_ND, y_NE = related(30, d, 8)
    turn_DD = ortho_group.rvs(d, random_state=1)
    stretch_DD = np.diag(np.logspace(-2, 1, d)) @ turn_DD
    as_it_is = cka(x_ND, y_NE)
    for name in BOTH:
        assert cka(x_ND, x_ND)[name] == pytest.approx(1)
        assert cka(x_ND, 7 * x_ND @ turn_DD - 4)[name] == pytest.approx(1)
        assert cka(0.01 * x_ND @ turn_DD + 9, y_NE)[name] == pytest.approx(as_it_is[name])
        assert abs(cka(x_ND @ stretch_DD, y_NE)[name] - as_it_is[name]) > 0.01
        assert cka(x_ND, x_ND @ stretch_DD)[name] < 0.99


def test_many_dimensions_of_few_unrelated_utterances_look_alike_to_the_plain_one_alone() -> None:
    rng = np.random.default_rng(0)
    values = [cka(rng.standard_normal((40, 1000)), rng.standard_normal((40, 88))) for _ in range(30)]
    assert np.mean([f["plain"] for f in values]) > 0.7
    debiased = np.array([f["debiased"] for f in values])
    assert abs(debiased.mean()) < 3 * debiased.std() / np.sqrt(30) + 1e-3
    assert np.abs(debiased).max() < 0.1


@pytest.mark.parametrize("shape", [(40, 300, 20), (60, 6, 20)])
def test_chance_is_told_from_a_relation(shape: tuple[int, int, int]) -> None:
    x_ND, y_NE = related(*shape)
    for name, chance in cka_by_chance(x_ND, y_NE, 99, 0).items():
        assert chance.value == cka(x_ND, y_NE)[name]
        assert chance.value > chance.p95 > chance.mean
        assert chance.p == 1 / 100
    assert abs(cka_by_chance(x_ND, y_NE, 99, 0)["debiased"].mean) < 0.01


def test_p_is_uniform_where_nothing_is_related() -> None:
    rng = np.random.default_rng(3)
    pairs = [(rng.standard_normal((15, 30)), rng.standard_normal((15, 4))) for _ in range(300)]
    p = np.array([cka_by_chance(x, y, 39, i)["debiased"].p for i, (x, y) in enumerate(pairs)])
    assert p.min() >= 1 / 40
    assert 0.01 <= np.mean(p <= 0.05) <= 0.09
    assert np.mean(p) == pytest.approx(0.5, abs=0.06)


def test_permuted_values_are_those_of_permuted_rows() -> None:
    x_ND, y_NE = related(12, 20, 3)
    rng = np.random.default_rng(5)
    by_hand = [cka(x_ND, y_NE[rng.permutation(12)])["debiased"] for _ in range(7)]
    chance = cka_by_chance(x_ND, y_NE, 7, 5)["debiased"]
    assert (chance.mean, chance.p95) == pytest.approx((np.mean(by_hand), np.quantile(by_hand, 0.95)))
    assert chance == cka_by_chance(x_ND, y_NE, 7, 5)["debiased"]
    assert chance != cka_by_chance(x_ND, y_NE, 7, 6)["debiased"]


def test_standardised() -> None:
    x_ND = np.array([[1, 5, 0.1], [2, 5, 0.1], [3, 5, 0.1], [4, 5, 0.1]], np.float32)
    out_ND = standardise(x_ND)
    assert out_ND[:, 0] == pytest.approx(np.array([-3, -1, 1, 3]) / np.sqrt(5))
    assert not out_ND[:, 1:].any()  # 0.1 has no exact float: its deviation is rounding


@pytest.mark.parametrize("d", [6, 3_000])
def test_svcca_finds_the_shared_subspace(d: int) -> None:
    """Columns of a Hadamard matrix: orthogonal and of mean 0. Two of four are shared, and hidden in many dimensions."""
    columns = hadamard(64)[:, 1:7].astype(float)
    spread = np.random.default_rng(0).standard_normal((4, d))
    one, other = columns[:, :4] @ spread, columns[:, 2:]
    assert svcca(one, other).dims == (4, 4)
    assert svcca(one, other).value == pytest.approx(2 / 4)
    assert svcca(one, one @ np.random.default_rng(1).standard_normal((d, d))).value == pytest.approx(1)


def test_svcca_drops_the_last_hundredth_of_variance() -> None:
    columns = hadamard(64)[:, 1:4].astype(float)
    strong = columns * np.sqrt([0.6, 0.395, 0.005])
    weak = columns * np.sqrt([0.6, 0.38, 0.02])
    assert svcca(strong, columns).dims == (2, 3)
    assert svcca(weak, columns).dims == (3, 3)


def test_svcca_is_refused_below_five_utterances_a_dimension() -> None:
    columns = hadamard(64)[:, 1:8].astype(float)
    values = svcca(columns[:, :6], columns)  # needs 5 * (6 + 7)
    assert (values.value, values.dims) == (None, (6, 7))
    assert values.refused == "64 utterances for 6 and 7 dimensions; it needs 65"
    assert svcca(columns[:, :5], columns).value == pytest.approx(1)


def test_what_has_no_cka_is_refused() -> None:
    x_ND, y_NE = related(10, 4, 3)
    assert "all alike" in refusal(cka, np.ones((10, 4)), y_NE)
    assert "not finite" in refusal(cka, x_ND, np.where(y_NE > 1, np.nan, y_NE))
    assert "equally far apart" in refusal(cka, np.eye(10), y_NE)
    assert "there are 3" in refusal(cka, x_ND[:3], y_NE[:3])
    assert "all alike" in refusal(svcca, x_ND, np.ones((10, 1)))
    with pytest.raises(AssertionError):
        cka(x_ND, y_NE[:9])
