"""The surrogate of a race: against its formulas, and what must not move it."""

from __future__ import annotations

import numpy as np
import pytest
from places import ROOT

from bas.runs.spaces import load_space
from bas.search.race import improvement
from bas.search.surrogate import Posterior, codes, posterior, similarity

WIDE = load_space(str(ROOT / "search_spaces" / "ser_wide.py")).space


def known(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Codes of all architectures, and of 12 losses: which architecture, which replication, the loss."""
    architectures = list(dict.fromkeys(map(WIDE.distinct, WIDE.architectures())))
    rng = np.random.default_rng(seed)
    which_N = rng.choice(len(architectures), 6).repeat(2)
    return codes(WIDE, architectures), which_N, np.tile([0, 1], 6), rng.normal(1, 0.1, 12)


def test_what_a_replication_does_to_all_changes_nothing() -> None:
    codes_AP, which_N, replication_N, loss_N = known()
    wanted = np.arange(200)
    one = posterior(codes_AP, which_N, replication_N, loss_N, wanted, 0, 0)
    other = posterior(codes_AP, which_N, replication_N, loss_N + 5 * replication_N, wanted, 0, 0)
    assert other.mean_A == pytest.approx(one.mean_A, abs=1e-9)
    assert other.sd_A == pytest.approx(one.sd_A, rel=1e-6)
    assert other.noise == pytest.approx(one.noise)


def test_an_architecture_alone_in_a_replication_teaches_nothing() -> None:
    codes_AP, which_N, replication_N, loss_N = known()
    more = (np.append(which_N, which_N[0]), np.append(replication_N, 2), np.append(loss_N, -7.0))
    one = posterior(codes_AP, which_N, replication_N, loss_N, which_N, 0, 0)
    other = posterior(codes_AP, *more, which_N, 0, 0)
    assert other.mean_A == pytest.approx(one.mean_A, abs=1e-9)


def test_against_the_formulas_of_a_gaussian_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """One point of the grid; the shifts with a variance so large that it is none."""
    monkeypatch.setattr("bas.search.surrogate.SHARED", (0.7,))
    monkeypatch.setattr("bas.search.surrogate.OWN", (0.2,))
    codes_AP, which_N, replication_N, loss_N = known(1)
    wanted = np.array([*which_N[:6:2], 100, 2000])
    of = posterior(codes_AP, which_N, replication_N, loss_N, wanted, 40_000, 0)

    def kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        own = np.array([[float(a == b) for b in right] for a in left])
        differ = np.array([[(codes_AP[a] != codes_AP[b]).sum() for b in right] for a in left])
        return np.asarray(0.7 * np.exp(-differ / 2) + 0.2 * own)

    shifts = 1e7 * (replication_N[:, None] == replication_N)
    inverse = np.linalg.inv(kernel(which_N, which_N) + np.eye(12) + shifts)
    cross = kernel(wanted, which_N)
    assert of.mean_A == pytest.approx(cross @ inverse @ loss_N, abs=1e-5)
    covariance = of.noise**2 * (kernel(wanted, wanted) - cross @ inverse @ cross.T)
    assert of.sd_A == pytest.approx(np.sqrt(np.diag(covariance)), rel=1e-3)
    assert np.cov(of.samples_SA.T) == pytest.approx(covariance, abs=0.04 * covariance.max())
    assert of.samples_SA.mean(0) == pytest.approx(of.mean_A, abs=0.02 * of.noise)


def test_the_noise_of_a_training_is_estimated() -> None:
    codes_AP, which_N, _, _ = known()
    rng = np.random.default_rng(0)
    which, replication = np.tile(np.arange(0, 3000, 300), 20), np.arange(20).repeat(10)
    loss = rng.normal(0, 0.07, 3001)[which] + rng.normal(0, 1, 20)[replication] + rng.normal(0, 0.05, 200)
    of = posterior(codes_AP, which, replication, loss, which_N, 0, 0)
    assert of.noise == pytest.approx(0.05, rel=0.2)


def test_similarity_falls_with_the_number_of_parts_that_differ() -> None:
    one = np.array([[0, 0, 0]])
    others = np.array([[0, 0, 0], [1, 0, 0], [2, 1, 0], [1, 1, 1]])
    assert similarity(one, others)[0] == pytest.approx(np.exp(-np.array([0, 1, 2, 3]) / 2))


def test_expected_improvement_against_draws() -> None:
    mean_A, sd_A = np.array([0.0, 0.1, -0.2, 1.0]), np.array([0.1, 0.3, 0.01, 0.2])
    got = improvement(Posterior(mean_A, sd_A, 0.1, np.empty((0, 4))), np.array([0, 3]))
    draws = np.random.default_rng(0).normal(mean_A, sd_A, (400_000, 4))
    assert got == pytest.approx(np.maximum(0.0 - draws, 0).mean(0), abs=1e-3)
