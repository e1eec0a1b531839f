"""Statistics of an audit: every architecture of a space trained alone, and the searches that scored them.

Axes: A architectures, S seeds (shared by all architectures: the same initial weights and batch order), U independent
units (speakers), N test utterances pooled over the folds,
P searches, H splits of the seeds into halves, D draws. Accuracies, regrets and effects are in the metric's own unit
(0..1 for WA, UA and WF1). Shapes that do not fit raise AssertionError.

References
    Kruskal, *J. Am. Stat. Assoc.* 53, 1958: tau = 2/π · arcsin(r) between two normal variables of correlation r.
    McGraw and Wong, *Psychological Methods* 1(1), 1996: ICC(C, k), the reliability of a mean in a two-way layout.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy.stats import f as snedecor_f
from scipy.stats import kendalltau, spearmanr

from bas.stats.intervals import MIN_UNITS, mean_metric, spread
from bas.stats.metrics import ANY, Limits, Metric
from bas.stats.sampling import LEVEL, TOLERANCE, Predictions, Sampled, conclude, sample

DIGITS = 12  # Means of the same terms in another order differ in the last bits: rounding keeps their ties.


def halves(seeds: int) -> np.ndarray:
    """Every unordered split of the seeds into halves, `(H, S)`: True marks the smaller. 3 of 3 or 4 seeds, 0 of one."""
    assert 0 < seeds <= 16, seeds  # 6,435 splits; beyond, draw them
    if seeds == 1:
        return np.zeros((0, 1), bool)
    # With an even number of seeds each split would come up twice: keep the half with seed 0.
    firsts = [c for c in itertools.combinations(range(seeds), seeds // 2) if seeds % 2 or 0 in c]
    return np.array([[s in first for s in range(seeds)] for first in firsts])


def percentile(truth_A: np.ndarray, pick: int) -> float:
    """Share of the other architectures that the pick beats, in 0..1, ties half: a random pick expects 0.5."""
    assert truth_A.shape == (truth_A.size,), truth_A.shape
    assert truth_A.size > 1, "a space of one architecture ranks nothing"
    gap_A = (truth_A[pick] - np.delete(truth_A, pick)).round(DIGITS)
    return float(np.mean((1 + np.sign(gap_A)) / 2))


def _ranks_alike(x_A: np.ndarray, y_A: np.ndarray) -> tuple[float, float]:
    """Kendall's tau-b and Spearman's rho; both 0 where x or y is constant, as it ranks nothing."""
    x_A, y_A = x_A.round(DIGITS), y_A.round(DIGITS)
    if np.ptp(x_A) == 0 or np.ptp(y_A) == 0:
        return 0.0, 0.0
    return float(kendalltau(x_A, y_A).statistic), float(spearmanr(x_A, y_A).statistic)


@dataclass(frozen=True)
class Agreement:
    """Rank agreement of P searches' scores with the truth; mean and sample sd over the searches (0.0 with one)."""

    taus: tuple[float, ...]  # Kendall's tau-b, one a search
    rhos: tuple[float, ...]  # Spearman
    tau: float
    tau_sd: float
    rho: float
    rho_sd: float
    mean_score_tau: float  # of the score averaged over the searches
    mean_score_rho: float
    constant: int  # searches with one score for all


def agreement(scores_PA: np.ndarray, truth_A: np.ndarray) -> Agreement:
    """How well the scores rank the architectures by their stand-alone accuracies. In both, larger is better.

    A search that gives every architecture the same score ranks nothing: its correlations are 0 by convention, and
    `constant` counts such searches. The mean score assumes that all searches score on one scale.
    """
    assert scores_PA.shape == (len(scores_PA), truth_A.size), (scores_PA.shape, truth_A.shape)
    assert scores_PA.size > 0, "no searches"
    taus, rhos = zip(*(_ranks_alike(score_A, truth_A) for score_A in scores_PA), strict=True)
    constant = np.count_nonzero(np.ptp(scores_PA.round(DIGITS), axis=1) == 0)
    return Agreement(taus, rhos, *spread(taus), *spread(rhos), *_ranks_alike(scores_PA.mean(0), truth_A), int(constant))


def split_half(accuracy_AS: np.ndarray) -> float | None:
    """Kendall's tau between two halves of the seeds (all S agree better), mean over every split; None with one seed."""
    splits_HS = halves(accuracy_AS.shape[1])
    taus = [_ranks_alike(accuracy_AS[:, h_S].mean(1), accuracy_AS[:, ~h_S].mean(1))[0] for h_S in splits_HS]
    return float(np.mean(taus)) if taus else None


@dataclass(frozen=True)
class Regret:
    """What the picks cost against the best architecture. In expectation cross_fitted <= true regret <= naive."""

    cross_fitted: float | None  # may be negative; None with one seed
    naive: float
    picks: int


def regret(accuracy_AS: np.ndarray, picks: Sequence[int]) -> Regret:
    """How far the picks are behind the best architecture, mean over the picks (all indices: a random pick).

    naive: the largest mean accuracy minus the pick's. The largest of A noisy means is too large, so this is above 0
    even where all architectures are equal: 1.5 points for 27 of them, 3 seeds, a noise of 1.3 points.
    cross_fitted: the best is chosen on one half of the seeds; it and the pick are then evaluated on the other half.
    Mean over every split, both ways; ties are averaged. Its expectation is 0 if all architectures are equal, whatever
    the noise. Half the seeds may miss the best, so it is biased low.
    Both assume picks that are independent of these trainings' noise, and are about these test units.
    """
    assert len(picks) > 0, "no picks"
    splits_HS, picked = halves(accuracy_AS.shape[1]), list(picks)
    gaps = []
    for choosing_S in (*splits_HS, *~splits_HS):
        chosen_A = accuracy_AS[:, choosing_S].mean(1).round(DIGITS)
        value_A = accuracy_AS[:, ~choosing_S].mean(1)
        gaps.append(value_A[chosen_A == chosen_A.max()].mean() - value_A[picked].mean())
    naive = accuracy_AS.mean(1).max() - accuracy_AS[picked].mean()
    return Regret(float(np.mean(gaps)) if gaps else None, float(naive), len(picked))


@dataclass(frozen=True)
class Ceiling:
    """The Kendall tau of a perfect predictor, and the variance components behind it."""

    tau: float
    low: float  # 5 % and 95 % of spaces like this one
    high: float
    architecture_sd: float  # true differences between architectures, in the metric's unit
    noise_sd: float  # of one training, in the metric's unit
    reliability: float  # share of the variance of means over S seeds that is true, 0..1
    reliability_low: float  # 95 % interval
    reliability_high: float


def ceiling(accuracy_AS: np.ndarray, *, draws: int = 1_000, seed: int = 0) -> Ceiling | None:
    """The tau that the true means would reach against the observed means of S seeds. None with one seed.

    Two-way layout without interaction, accuracy = architecture + seed + noise: all architectures share a seed's
    initial weights and batch order, so the seeds' means are subtracted; they shift all alike and change no rank. By
    the method of moments var_A = (MS_A − MS_E) / S, floored at 0; the reliability of a mean is 1 − MS_E / MS_A with
    the F interval of ICC(C, k) (McGraw and Wong 1996). tau is exact for normal architectures and noise,
    2/π · arcsin √reliability (Kruskal 1958), and 0 if the estimated variance is 0; low and high are simulated in
    `draws` spaces of the estimated variances, so they do not include the error of these estimates: the reliability's
    interval does.

    The choice of test speakers is a noise that all seeds share: its effect on single architectures counts as a true
    difference here. For new speakers the ceiling is lower.
    """
    architectures, seeds = accuracy_AS.shape
    assert architectures > 1, "a space of one architecture ranks nothing"
    if seeds == 1:
        return None
    mean_A = accuracy_AS.mean(1)
    residual_AS = accuracy_AS - mean_A[:, None] - accuracy_AS.mean(0) + accuracy_AS.mean()
    degrees = (architectures - 1, (architectures - 1) * (seeds - 1))
    between = seeds * float(np.var(mean_A, ddof=1))
    within = float(np.sum(residual_AS**2)) / degrees[1]
    ratio = within / between if between > TOLERANCE**2 else math.inf  # all alike but for the last bits
    reliability, low, high = (max(0.0, 1 - q * ratio) for q in (1, *snedecor_f.ppf([0.975, 0.025], *degrees)))
    true_sd, noise_sd = math.sqrt(reliability * between / seeds), math.sqrt(within)
    taus = [0.0]
    if reliability > 0:
        rng = np.random.default_rng(seed)
        true_DA = rng.normal(0, true_sd, (draws, architectures))
        seen_DA = true_DA + rng.normal(0, noise_sd / math.sqrt(seeds), (draws, architectures))
        taus = [kendalltau(true_A, seen_A).statistic for true_A, seen_A in zip(true_DA, seen_DA, strict=True)]
    tau_low, tau_high = np.quantile(taus, [0.05, 0.95]).tolist()
    tau = 2 / math.pi * math.asin(math.sqrt(reliability))
    return Ceiling(tau, tau_low, tau_high, true_sd, noise_sd, reliability, float(low), float(high))


@dataclass(frozen=True)
class Effect:
    """A contrast between architectures in the metric's own unit. Positive: the side of positive weights is higher."""

    DERIVED: ClassVar = ("verdict",)

    value: float
    low: float  # -inf without an interval
    high: float  # +inf without an interval
    p: float
    units: int
    by_fold: bool  # the units are the folds, as there was one seed
    level: float = LEVEL

    @property
    def verdict(self) -> Literal["higher", "lower", "undecided", "no claim"]:
        """Undecided: the interval holds 0. No claim: fewer than MIN_UNITS units, or no interval."""
        if self.units < MIN_UNITS or not math.isfinite(self.low + self.high):
            return "no claim"
        if self.low > TOLERANCE:
            return "higher"
        return "lower" if self.high < -TOLERANCE else "undecided"


def sample_all(
    targets_N: np.ndarray, predictions_ASN: np.ndarray, folds_N: np.ndarray, units_N: np.ndarray, metric: Metric
) -> Sampled:
    """The metric of every architecture, mean over seeds, `(A,)`, without each unit and with other trainings.

    The trainings of one fold and seed are exchanged together, for all architectures: they share batches.
    """
    rows = Predictions(np.moveaxis(predictions_ASN, 0, 2), folds_N)

    def means(kept_N: np.ndarray, rows_SNA: np.ndarray) -> np.ndarray:
        each = [mean_metric(metric, targets_N, kept_N, rows_SNA[:, :, a]) for a in range(rows_SNA.shape[2])]
        return np.array(each)

    return sample(means, units_N, (rows,))


def contrast(sampled: Sampled, weights_A: np.ndarray, level: float = LEVEL, limits: Limits = ANY) -> Effect:
    """Σ weight · accuracy over the architectures, of `sample_all`; the weights sum to 0, so 0 is no difference.

    The interval is that of `bas.stats.paired`, over units and trainings, not corrected for multiple comparisons.
    limits: of the difference.
    """
    assert abs(weights_A.sum()) < 1e-9, "not a contrast"
    of = conclude(sampled.at(weights_A), level, limits)
    return Effect(of.value, of.low, of.high, of.p, of.units, of.by_fold, level)


@dataclass(frozen=True)
class SlotEffects:
    """The effect of each block at one slot, averaged over all blocks of the other slots."""

    means: dict[str, float]  # mean accuracy of the architectures with the block there
    effects: dict[str, Effect]  # that mean minus the mean of the whole space


def marginal_effects(
    sampled: Sampled, designs: Sequence[Mapping[str, str]], limits: Limits = ANY
) -> dict[str, SlotEffects]:
    """By slot, the main effect of every block over a complete grid, of `sample_all`.

    designs: slot to block of each architecture, every combination once, so that all other slots are balanced. With K
    blocks, "b minus the rest" would be K / (K − 1) times "b minus the mean of the space". limits: of a difference.
    """
    assert len({tuple(design) for design in designs}) == 1, "architectures of several spaces"
    slots = {slot: list(dict.fromkeys(design[slot] for design in designs)) for slot in designs[0]}
    distinct = len({tuple(design.values()) for design in designs})
    assert len(sampled.whole) == len(designs) == distinct == math.prod(map(len, slots.values())), "not a complete grid"

    effects = {}
    for slot, blocks in slots.items():
        has = {block: np.array([design[slot] == block for design in designs]) for block in blocks}
        share = {block: has_A / has_A.sum() for block, has_A in has.items()}
        effects[slot] = SlotEffects(
            {b: float(sampled.whole @ share[b]) for b in blocks},
            {b: contrast(sampled, share[b] - 1 / len(designs), limits=limits) for b in blocks},
        )
    return effects
