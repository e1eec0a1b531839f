"""How similar two representations of the same utterances are: linear CKA, its value by chance, and SVCCA.

Axes: N utterances, D and E dimensions of the two, R dimensions of either after a reduction that keeps all inner
products.

References
    Kornblith, Norouzi, Lee and Hinton, *ICML* 2019: linear CKA, HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = XXᵀ.
    Song, Smola, Gretton, Bedo and Borgwardt, *JMLR* 13, 2012: the unbiased estimator of HSIC, eq. 4.
    Nguyen, Raghu and Kornblith, *ICLR* 2021; Murphy, Zylberberg and Fyshe, 2024 (arXiv 2405.01012): CKA of it. Plain
        CKA rises with the dimensions and falls with the utterances even of unrelated data; debiased it does not.
    Raghu, Gilmer, Yosinski and Sohl-Dickstein, *NeurIPS* 2017: SVCCA.
    Phipson and Smyth, *Stat. Appl. Genet. Mol. Biol.* 9(1):39, 2010: (1 + count) / (1 + B).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bas.errors import UserError

MIN_UTTERANCES = 4  # the unbiased estimator divides by N (N - 3)
CONSTANT = 1e-7  # a deviation below this share of the largest value is float32's rounding
VARIANCE = 0.99  # that SVCCA keeps
PER_DIMENSION = 5  # utterances for each dimension: with fewer, canonical correlations of unrelated data are near 1
TOLERANCE = 1e-12  # sums of the same terms in another order count as equal


@dataclass(frozen=True)
class Chance:
    """A value beside those of `draws` permutations of the utterances of one side."""

    value: float
    mean: float
    p95: float  # the 95th percentile of the permuted
    p: float  # (1 + how many are as large) / (1 + draws)


@dataclass(frozen=True)
class Svcca:
    """The mean canonical correlation."""

    value: float | None  # 0..1; None where it is refused
    dims: tuple[int, int]  # of each side after its PCA
    refused: str = ""  # why


def standardise(x_ND: np.ndarray) -> np.ndarray:
    """Each dimension with mean 0 and deviation 1 (float64); 0 throughout where it has one value only."""
    x_ND = x_ND.astype(np.float64)
    centred_ND = x_ND - x_ND.mean(0)
    sd_D = centred_ND.std(0)
    varies_D = sd_D > CONSTANT * np.abs(x_ND).max(0)
    return np.where(varies_D, centred_ND / np.where(varies_D, sd_D, 1), 0)


def cka(x_ND: np.ndarray, y_NE: np.ndarray) -> dict[str, float]:
    """Linear CKA, `debiased` (about 0 for unrelated data, so it may be negative; at most 1) and `plain` (0..1).

    Raises UserError where it is not defined: fewer than four utterances, values that are not finite, or a side on which
    all utterances are equal or equally far apart.
    """
    x_NR, y_NR = _reduce(x_ND, y_NE)
    return dict(zip(("debiased", "plain"), map(float, _hsic(x_NR, y_NR) / _norms(x_NR, y_NR)), strict=True))


def cka_by_chance(x_ND: np.ndarray, y_NE: np.ndarray, draws: int, seed: int) -> dict[str, Chance]:
    """`cka`, each value beside those of `draws` permutations of the rows of y; one-sided. Raises as `cka` does."""
    assert draws > 0, draws
    x_NR, y_NR = _reduce(x_ND, y_NE)
    norms, rng = _norms(x_NR, y_NR), np.random.default_rng(seed)
    observed = _hsic(x_NR, y_NR) / norms
    permuted_B2 = np.array([_hsic(x_NR, y_NR[rng.permutation(len(y_NR))]) for _ in range(draws)]) / norms
    return {
        name: Chance(
            value=float(observed[i]),
            mean=float(permuted_B2[:, i].mean()),
            p95=float(np.quantile(permuted_B2[:, i], 0.95)),
            p=float((1 + np.count_nonzero(permuted_B2[:, i] >= observed[i] - TOLERANCE)) / (1 + draws)),
        )
        for i, name in enumerate(("debiased", "plain"))
    }


def svcca(x_ND: np.ndarray, y_NE: np.ndarray) -> Svcca:
    """The mean of the canonical correlations of the two, each reduced by PCA to 99 % of its variance.

    Refused with fewer than five utterances for each dimension of the two together: the subspaces then meet by chance.
    Raises UserError as `cka` does.
    """
    bases = [_principal(x) for x in _reduce(x_ND, y_NE)]
    p, q = (basis.shape[1] for basis in bases)
    needed = PER_DIMENSION * (p + q)
    if len(x_ND) < needed:
        return Svcca(None, (p, q), f"{len(x_ND)} utterances for {p} and {q} dimensions; it needs {needed}")
    correlations = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    return Svcca(float(np.clip(correlations, 0, 1).mean()), (p, q))


def _principal(x_NR: np.ndarray) -> np.ndarray:
    """Orthonormal scores `(N, components)` of the fewest components that explain VARIANCE."""
    u_NR, s_R, _ = np.linalg.svd(x_NR, full_matrices=False)
    held_R = np.cumsum(s_R**2) / np.sum(s_R**2)
    return np.asarray(u_NR[:, : int(np.searchsorted(held_R, VARIANCE - TOLERANCE)) + 1])


def _reduce(x_ND: np.ndarray, y_NE: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sides centred; a side with more dimensions than utterances is rotated into N dimensions."""
    assert len(x_ND) == len(y_NE), (x_ND.shape, y_NE.shape)
    if len(x_ND) < MIN_UTTERANCES:
        raise UserError(f"CKA needs {MIN_UTTERANCES} utterances or more: there are {len(x_ND)}")
    return _centre(x_ND), _centre(y_NE)


def _centre(x_ND: np.ndarray) -> np.ndarray:
    x_ND = x_ND.astype(np.float64)
    x_ND -= x_ND.mean(0)
    if not np.isfinite(x_ND).all() or not x_ND.any():
        raise UserError("CKA is not defined for values that are all alike, or not finite: the model has collapsed?")
    if x_ND.shape[1] <= len(x_ND):
        return x_ND
    values_N, vectors_NN = np.linalg.eigh(x_ND @ x_ND.T)
    return np.asarray(vectors_NN * np.sqrt(np.clip(values_N, 0, None)))


def _hsic(x_NR: np.ndarray, y_NR: np.ndarray) -> np.ndarray:
    """N (N - 3) times the unbiased HSIC (Song et al., eq. 4), and (N - 1)² times the biased one, of centred data.

    With centred K = XXᵀ and L = YYᵀ, tr(KL) = ‖XᵀY‖². Song's K̃ is K without its diagonal k, so tr(K̃L̃) = tr(KL) - k·l,
    and, as every row of K sums to 0, K̃1 = -k. Centring changes nothing: the estimator ignores a constant added to a
    whole row and its column.
    """
    n = len(x_NR)
    overlap = float(((x_NR.T @ y_NR) ** 2).sum())
    k_N, l_N = (x_NR**2).sum(1), (y_NR**2).sum(1)
    unbiased = overlap - n / (n - 2) * (k_N @ l_N) + k_N.sum() * l_N.sum() / ((n - 1) * (n - 2))
    return np.array([unbiased, overlap])


def _norms(x_NR: np.ndarray, y_NR: np.ndarray) -> np.ndarray:
    """The divisors of the two values of `_hsic`; no permutation changes them."""
    own_22 = np.array([_hsic(x_NR, x_NR), _hsic(y_NR, y_NR)])
    if (own_22[:, 0] <= TOLERANCE * own_22[:, 1]).any():
        raise UserError("CKA is not defined where every two utterances are equally far apart")
    return np.asarray(np.sqrt(own_22.prod(0)))
