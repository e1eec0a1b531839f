"""What noisy losses of a few architectures say about all of them: a Gaussian process over blocks.

The loss of architecture a in replication r is

    loss(a, r) = shift(r) + f(a) + delta(a) + noise,    f ~ GP(0, s_f^2 exp(-h(a, a') / 2)), delta(a) ~ N(0, s_delta^2)

shift: what replication r does to every architecture (its held-out speakers are hard, say); a free constant, so that
architectures are compared within replications. h: the number of parts in which two architectures differ, empty slots
last. So neighbours of a good architecture are expected to be good, and of what is far from all that was tried nothing
is expected. delta: what is a's own. noise ~ N(0, s^2): of one training.

s is estimated by restricted maximum likelihood; s_f / s and s_delta / s are averaged over a grid, weighted by their
likelihood, for ten losses cannot tell them.

References
    Rasmussen and Williams, *Gaussian Processes for Machine Learning*, 2006, section 2.7: explicit basis functions.
    Patterson and Thompson, *Biometrika* 58, 1971: restricted likelihood.

Axes: A architectures, P parts, N losses that are known, R replications among them, W wanted architectures, G points of
the grid, S samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bas.space import Architecture, SearchSpace

SHARED = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
OWN = (0.001, 0.03, 0.1, 0.3, 1.0)
"""The grid: s_f^2 and s_delta^2 as multiples of s^2."""
NONE = (SHARED[0], OWN[0])
ALIKE = len(SHARED) * len(OWN)
"""Half of the grid's weight, before any loss is known, is on NONE: that all architectures are alike."""

REACH = 2.0  # parts
NEGLIGIBLE = 0.01  # a point of the grid of less weight is left out
FEWEST = 3.0  # weight of the prior of s^2, in losses: as if so many had been seen
PRIOR = 0.5  # its value, as a share of the variance of all losses within replications


def codes(space: SearchSpace, architectures: Sequence[Architecture]) -> np.ndarray:
    """The number of each part's candidate, `(A, P)`."""
    numbers = [{name: i for i, name in enumerate(choices)} for choices in space.searched.values()]
    return np.array([[n[name] for n, (_, name) in zip(numbers, a.blocks, strict=True)] for a in architectures])


def similarity(left_AP: np.ndarray, right_BP: np.ndarray) -> np.ndarray:
    """exp(-h / REACH) of each pair, `(A, B)`."""
    differ_AB = (left_AP[:, None] != right_BP[None]).sum(-1)
    return np.asarray(np.exp(-differ_AB / REACH))


@dataclass(frozen=True)
class Posterior:
    """Of the losses of A architectures, without shift; only their differences have a meaning.

    noise: standard deviation of the loss of one training. samples_SA: from the posterior, jointly.
    """

    mean_A: np.ndarray
    sd_A: np.ndarray
    noise: float
    samples_SA: np.ndarray


def posterior(
    codes_AP: np.ndarray,
    which_N: np.ndarray,
    replication_N: np.ndarray,
    loss_N: np.ndarray,
    wanted_W: np.ndarray,
    samples: int,
    seed: int,
) -> Posterior:
    """What the losses say of the architectures `wanted_W`.

    which_N: the architecture of each loss, an index of `codes_AP`. wanted_W: such indices, each once, in
    the order of the result.
    """
    names, replication_N = np.unique(replication_N, return_inverse=True)
    shift_NR = np.eye(len(names))[replication_N]
    known_NP, wanted_WP = codes_AP[which_N], codes_AP[wanted_W]
    shared_NN, shared_WN = similarity(known_NP, known_NP), similarity(wanted_WP, known_NP)
    own_NN, own_WN = (rows[:, None] == which_N for rows in (which_N, wanted_W))
    degrees = len(loss_N) - len(names)
    apart_N = loss_N - shift_NR @ np.linalg.lstsq(shift_NR, loss_N)[0]
    prior = max(PRIOR * float(apart_N @ apart_N) / max(degrees, 1), 1e-12)
    weight_G, fits = [], []
    for shared, own in itertools.product(SHARED, OWN):
        v_NN = np.eye(len(loss_N)) + shared * shared_NN + own * own_NN
        inverse_NN = np.linalg.inv(v_NN)
        fixed_RR = shift_NR.T @ inverse_NN @ shift_NR
        p_NN = inverse_NN - inverse_NN @ shift_NR @ np.linalg.solve(fixed_RR, shift_NR.T @ inverse_NN)
        noise = float(loss_N @ p_NN @ loss_N + FEWEST * prior) / (degrees + FEWEST)
        logs = np.linalg.slogdet(v_NN)[1] + np.linalg.slogdet(fixed_RR)[1]
        expected = ALIKE if (shared, own) == NONE else 1
        weight_G.append(np.log(expected) - 0.5 * (logs + (degrees + FEWEST) * np.log(noise)))
        fits.append((shared, own, noise, p_NN))
    weights_G = np.exp(np.array(weight_G) - max(weight_G))
    kept = np.flatnonzero(weights_G > NEGLIGIBLE * weights_G.sum())
    weights_G = weights_G[kept] / weights_G[kept].sum()
    count_G = np.random.default_rng(seed).multinomial(samples, weights_G)
    rng = np.random.default_rng(seed + 1)
    mean_GW, variance_GW, drawn, noises = [], [], [np.empty((0, len(wanted_W)))], []
    for (shared, own, noise, p_NN), count in zip((fits[g] for g in kept), count_G, strict=True):
        cross_WN = shared * shared_WN + own * own_WN
        known_WN = cross_WN @ p_NN
        mean_GW.append(known_WN @ loss_N)
        variance_GW.append(noise * np.maximum(shared + own - (known_WN * cross_WN).sum(1), 0.0))
        noises.append(noise)
        if count:
            prior_WW = shared * similarity(wanted_WP, wanted_WP) + own * np.eye(len(wanted_W))
            values_W, vectors_WW = np.linalg.eigh(noise * (prior_WW - known_WN @ cross_WN.T))
            root_WW = vectors_WW * np.sqrt(np.maximum(values_W, 0.0))
            drawn.append(mean_GW[-1] + rng.standard_normal((count, len(wanted_W))) @ root_WW.T)
    mean_W = weights_G @ np.array(mean_GW)
    sd_W = np.sqrt(weights_G @ (np.array(variance_GW) + (np.array(mean_GW) - mean_W) ** 2))
    return Posterior(mean_W, sd_W, float(np.sqrt(weights_G @ np.array(noises))), np.concatenate(drawn))
