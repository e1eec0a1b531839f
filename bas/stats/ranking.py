"""Statistics of an audit: every architecture of a space trained alone, and the searches that scored them.

Axes: A architectures, F folds, S seeds (shared by all architectures: the same initial weights and batch order), D draws
of picks, N test utterances pooled over the folds, H splits of the seeds into halves. A search is one fold and seed.
Accuracies, regrets and effects are in the metric's own unit (0..1 for WA, UA and WF1). Shapes that do not fit raise
AssertionError.

References
    Kruskal, *J. Am. Stat. Assoc.* 53, 1958: tau = 2/π · arcsin(r) between two normal variables of correlation r.
    McGraw and Wong, *Psychological Methods* 1(1), 1996: ICC(C, k), the reliability of a mean in a two-way layout.
    Robinson, *Statistical Science* 6(1):15, 1991: the best linear unbiased prediction of a random effect.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy.stats import f as snedecor_f
from scipy.stats import kendalltau
from scipy.stats import t as student_t

from bas.stats.intervals import MIN_UNITS, Estimate, mean_metric
from bas.stats.metrics import ANY, Limits, Metric
from bas.stats.reference import DIGITS, NOTHING_DRAWN, Drawn, Reference, beaten
from bas.stats.sampling import LEVEL, TOLERANCE, Predictions, Sampled, clip, conclude, sample

MOST_SEEDS = 16  # of an audit: all 6,435 ways to halve them are compared
NOISE = 0.1  # A ranking is refused unless more than this share of its variance is surely true.


def halves(seeds: int) -> np.ndarray:
    """Every unordered split of the seeds into halves, `(H, S)`: True marks the smaller. 3 of 3 or 4 seeds, 0 of one."""
    assert 0 < seeds <= MOST_SEEDS, seeds
    if seeds == 1:
        return np.zeros((0, 1), bool)
    # With an even number of seeds each split would come up twice: keep the half with seed 0.
    firsts = [c for c in itertools.combinations(range(seeds), seeds // 2) if seeds % 2 or 0 in c]
    return np.array([[s in first for s in range(seeds)] for first in firsts])


def tau(x_A: np.ndarray, y_A: np.ndarray) -> float:
    """Kendall's tau-b; 0 where x or y is constant, as it ranks nothing."""
    assert x_A.shape == y_A.shape == (x_A.size,), (x_A.shape, y_A.shape)
    x_A, y_A = x_A.round(DIGITS), y_A.round(DIGITS)
    if np.ptp(x_A) == 0 or np.ptp(y_A) == 0:
        return 0.0
    return float(kendalltau(x_A, y_A).statistic)


def split_half(accuracy_AS: np.ndarray) -> float | None:
    """Kendall's tau between two halves of the seeds (all S agree better), mean over every split; None with one seed."""
    splits_HS = halves(accuracy_AS.shape[1])
    taus = [tau(accuracy_AS[:, h_S].mean(1), accuracy_AS[:, ~h_S].mean(1)) for h_S in splits_HS]
    return float(np.mean(taus)) if taus else None


def components(accuracy_AS: np.ndarray) -> tuple[float, float]:
    """The mean squares MS_A between architectures and MS_E of the noise; see `ceiling`. Two seeds or more."""
    architectures, seeds = accuracy_AS.shape
    assert architectures > 1, "a space of one architecture ranks nothing"
    assert seeds > 1, "one seed does not show its noise"
    mean_A = accuracy_AS.mean(1)
    residual_AS = accuracy_AS - mean_A[:, None] - accuracy_AS.mean(0) + accuracy_AS.mean()
    noise = float(np.sum(residual_AS**2)) / ((architectures - 1) * (seeds - 1))
    return seeds * float(np.var(mean_A, ddof=1)), noise


def shrink(mean_A: np.ndarray, reliability: float) -> np.ndarray:
    """The best linear prediction of the true accuracies: means of seeds, moved to the mean of the space.

    reliability: the share of the means' variance that is true. The largest of A noisy means is too large, by 1.5 points
    for 27 equal architectures, 3 seeds and a noise of 1.3 points; of these it is not, if accuracies and noise are
    normal (Robinson 1991).
    """
    shrunken_A: np.ndarray = mean_A.mean() + reliability * (mean_A - mean_A.mean())
    return shrunken_A


def percentiles(
    accuracy_AS: np.ndarray, picks_DFS: np.ndarray, of: Reference | None = None, *, chosen: bool = False
) -> np.ndarray:
    """`(F, S)`: the share of the other architectures that a pick beats, in 0..1, ties half; mean over draws.

    By the means over the other seeds: a pick on valid may be lucky in the trainings of its own. A random pick expects
    0.5. Two seeds or more.

    of: where the first architectures are a sample of a space. Then the sample stands for the space: a pick expects its
    percentile there, whether it was drawn too or not. chosen: the picks were chosen from the sample, for their place in
    it. The best of n that were drawn beats all others of them, but only n / (n + 1) of a large space: the j-th of n has
    the expected rank j (N + 1) / (n + 1) among N.
    """
    of = of or Reference.all_of(len(accuracy_AS))
    beaten_DFS = np.array([beaten(accuracy_AS, picks_FS, of.drawn).sum(2) for picks_FS in picks_DFS])
    if chosen:
        values_DFS = ((beaten_DFS + 1) * (of.size + 1) / (of.drawn + 1) - 1) / (of.size - 1)
    else:
        values_DFS = beaten_DFS / (of.drawn - (picks_DFS < of.drawn))
    values_FS: np.ndarray = values_DFS.mean(0)
    return values_FS


def regrets(accuracy_AS: np.ndarray, picks_DFS: np.ndarray, of: Reference | None = None) -> np.ndarray:
    """`(F, S)`: how far a pick is behind the best architecture; mean over draws. Two seeds or more.

    The largest shrunken mean minus the mean of the pick, both over the other seeds. So equal architectures show a
    regret near 0, not that of the luckiest of A means. The pick's own mean is not shrunken, as its noise is not chosen;
    a little below 0 therefore means that no regret shows. It is the regret against the best that these trainings can
    name: the true best may be better. of: see `percentiles`; against the best of the sample, so a pick from elsewhere
    may be better, and its regret below 0.
    """
    seeds, sample_AS = accuracy_AS.shape[1], accuracy_AS[: of.drawn if of else None]
    of_architectures, noise = components(sample_AS)
    true = max(0.0, of_architectures - noise) / seeds
    reliability = true / (true + noise / (seeds - 1)) if true > TOLERANCE**2 else 0.0
    values_DFS = np.empty(picks_DFS.shape)
    for s in range(seeds):
        others_A = np.delete(accuracy_AS, s, axis=1).mean(1)
        best = shrink(others_A[: len(sample_AS)], reliability).max()
        values_DFS[:, :, s] = best - others_A[picks_DFS[:, :, s]]
    values_FS: np.ndarray = values_DFS.mean(0)
    return values_FS


def taus(accuracy_AS: np.ndarray, scores_FSA: np.ndarray) -> np.ndarray:
    """`(F, S)`: how well each search's scores, larger is better, rank the architectures by their means over seeds.

    Of the first architectures, where there are scores for these alone.
    """
    truth_A = accuracy_AS[: scores_FSA.shape[2]].mean(1)
    return np.array([[tau(score_A, truth_A) for score_A in of_fold] for of_fold in scores_FSA])


def over_searches(
    values: Callable[[np.ndarray], np.ndarray],
    accuracy_AS: np.ndarray,
    without_FAS: np.ndarray,
    limits: Limits = ANY,
    level: float = LEVEL,
    drawn: Drawn = NOTHING_DRAWN,
) -> Estimate:
    """The mean over all searches, with its interval for other folds (so, other speakers) and other seeds.

    values: the `(F, S)` values of the searches, from the architectures' accuracies. without_FAS: the accuracies
    without the test utterances of each fold. drawn: what a sample of architectures adds, see `Reference`; the interval
    is then for other samples, too.

    The F x S searches are not independent: those of a fold share its recordings, and all are judged by the same
    trainings. A seed draws anew in every fold, so those of one seed share nothing more. The folds are the units:
    a jackknife leaves out a fold with its searches and its test utterances, which shows the noise of searches and of
    the ranking that judges them; then Student's t with F - 1 degrees of freedom. No interval below MIN_UNITS
    folds. Where searches differ these cover 95 % or more (simulated in the tests); that of a percentile about 90 % if
    all searches pick the same architecture, as a rank moves in steps.
    """
    values_FS = values(accuracy_AS)
    folds = len(values_FS)
    assert len(without_FAS) == folds, (len(without_FAS), folds)
    value = float(values_FS.mean())
    if folds < MIN_UNITS:
        return Estimate(value, -math.inf, math.inf)
    without_F = [np.delete(values(without_AS), f, axis=0).mean() for f, without_AS in enumerate(without_FAS)]
    variance = (folds - 1) ** 2 * float(np.var(without_F, ddof=1)) / folds
    if variance <= TOLERANCE**2:
        return Estimate(value, -math.inf, math.inf)  # All folds agree: no spread to judge by.
    whole = variance + drawn[0]
    degrees = whole**2 / (variance**2 / (folds - 1) + drawn[0] ** 2 / drawn[1])  # Satterthwaite
    half_width = float(student_t.ppf((1 + level) / 2, degrees)) * math.sqrt(whole)
    return Estimate(value, *clip(value - half_width, value + half_width, limits))


@dataclass(frozen=True)
class Ceiling:
    """The Kendall tau of a perfect predictor, and the variance components behind it."""

    DERIVED: ClassVar = ("ranks",)

    tau: float
    low: float  # 5 % and 95 % of spaces like this one
    high: float
    architecture_sd: float  # true differences between architectures, in the metric's unit
    noise_sd: float  # of one training, in the metric's unit
    reliability: float  # share of the variance of means over S seeds that is true, 0..1
    reliability_low: float  # 95 % interval
    reliability_high: float
    enough_seeds: int | None  # so many would rank the architectures if the components are true; None: over MOST_SEEDS

    @property
    def ranks(self) -> bool:
        """Whether the means rank the architectures: surely more than NOISE of their variance is true."""
        return self.reliability_low > NOISE


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
    between, within = components(accuracy_AS)
    ratio = within / between if between > TOLERANCE**2 else math.inf  # all alike but for the last bits

    def reliable(seeds: int, ratio: float) -> list[float]:
        """The reliability of means over so many seeds, and its interval."""
        quantiles = snedecor_f.ppf([0.975, 0.025], architectures - 1, (architectures - 1) * (seeds - 1))
        return [max(0.0, 1 - float(q) * ratio) for q in (1, *quantiles)]

    reliability, low, high = reliable(seeds, ratio)
    true_sd, noise_sd = math.sqrt(reliability * between / seeds), math.sqrt(within)
    taus, enough = [0.0], None
    if reliability > 0:
        rng = np.random.default_rng(seed)
        true_DA = rng.normal(0, true_sd, (draws, architectures))
        seen_DA = true_DA + rng.normal(0, noise_sd / math.sqrt(seeds), (draws, architectures))
        taus = [kendalltau(true_A, seen_A).statistic for true_A, seen_A in zip(true_DA, seen_DA, strict=True)]
        of_one = (1 / ratio - 1) / seeds if ratio else math.inf  # var_A / MS_E
        more = (n for n in range(2, MOST_SEEDS + 1) if reliable(n, 1 / (1 + n * of_one))[1] > NOISE)
        enough = next(more, None)
    tau_low, tau_high = np.quantile(taus, [0.05, 0.95]).tolist()
    tau = 2 / math.pi * math.asin(math.sqrt(reliability))
    return Ceiling(tau, tau_low, tau_high, true_sd, noise_sd, reliability, low, high, enough)


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


def contrast(
    sampled: Sampled, weights_A: np.ndarray, level: float = LEVEL, limits: Limits = ANY, of: Reference | None = None
) -> Effect:
    """Σ weight · accuracy over the architectures, of `sample_all`; the weights sum to 0, so 0 is no difference.

    The interval is that of `bas.stats.paired`, over units and trainings, not corrected for multiple comparisons.
    limits: of the difference. of: where the architectures were drawn from a space, for other draws too: their variance
    times Σ weight². That has in it the noise of training, which the interval has already: it is cautious.
    """
    assert abs(weights_A.sum()) < 1e-9, "not a contrast"
    of = of or Reference.all_of(len(weights_A))
    variance, degrees = of.variance(sampled.whole)
    drawn = of.drawn * variance * float((weights_A**2).sum()), degrees
    concluded = conclude(sampled.at(weights_A), level, limits, drawn)
    return Effect(
        concluded.value, concluded.low, concluded.high, concluded.p, concluded.units, concluded.by_fold, level
    )


@dataclass(frozen=True)
class SlotEffects:
    """The effect of each block at one slot, averaged over all blocks of the other slots."""

    means: dict[str, float]  # mean accuracy of the architectures with the block there
    effects: dict[str, Effect]  # that mean minus the mean of the whole space


def marginal_effects(
    sampled: Sampled,
    designs: Sequence[Mapping[str, str]],
    limits: Limits = ANY,
    of: Reference | None = None,
    models_D: np.ndarray | None = None,
) -> dict[str, SlotEffects]:
    """By slot, the main effect of every block over a complete grid, of `sample_all`; or over a sample of a space.

    designs: slot to block of each architecture, every combination once, so that all other slots are balanced. With K
    blocks, "b minus the rest" would be K / (K − 1) times "b minus the mean of the space". In a sample (of: see
    `contrast`) the other slots are balanced but for chance. limits: of a difference.

    models_D: which model each of the D designs is, where several are the same network and one was trained for all:
    in a grid an empty slot stands before a block as often as behind it. None: each is its own.
    """
    models_D = np.arange(len(designs)) if models_D is None else models_D
    assert len({tuple(design) for design in designs}) == 1, "architectures of several spaces"
    slots = {slot: list(dict.fromkeys(design[slot] for design in designs)) for slot in designs[0]}
    distinct = len({tuple(design.values()) for design in designs})
    assert len(models_D) == len(designs) == distinct, "an architecture is there twice"
    assert set(models_D.tolist()) == set(range(len(sampled.whole))), "architectures and results are not the same"
    if of is None or of.drawn == of.size:
        assert distinct == math.prod(map(len, slots.values())), "not a complete grid"

    effects = {}
    for slot, blocks in slots.items():
        has = {block: np.array([design[slot] == block for design in designs]) for block in blocks}
        share = {block: by_model(has_D / has_D.sum(), models_D) for block, has_D in has.items()}
        mean_A = by_model(np.full(len(designs), 1 / len(designs)), models_D)
        effects[slot] = SlotEffects(
            {b: float(sampled.whole @ share[b]) for b in blocks},
            {b: contrast(sampled, share[b] - mean_A, limits=limits, of=of) for b in blocks},
        )
    return effects


def by_model(weights_D: np.ndarray, models_D: np.ndarray) -> np.ndarray:
    """`(A,)`: the sum of the weights of all designs that are one model."""
    return np.bincount(models_D, weights_D)
