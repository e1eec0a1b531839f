"""Does attention follow the voice? The weights of each test utterance against its loudness, its pitch and the time.

Spearman's rank correlation over an utterance's frames, then the mean over utterances. A query from the last state may
simply prefer the end, where speech grows softer, so there are also partial correlations with loudness and pitch given
the time. Frames are those after the stride. Each network's weights are correlated by themselves, and the correlations
averaged over seeds: those of averaged weights would be larger than any network's.

Interval (`bas.stats.sampling`): would other speakers and other trainings show it? p: do these weights show it?
Two-sided, against circular shifts of each utterance's weights, which keep their smoothness and their peaks; (1 + count)
/ (1 + DRAWS). A correlation is shown when both agree and there are MIN_UNITS units.

Axes: T frames of one utterance, S seeds, K shifts, U utterances.

References
    Kendall, *Biometrika* 32(3/4):277, 1942: partial rank correlation, here of Spearman's.
    Phipson and Smyth, *Stat. Appl. Genet. Mol. Biol.* 9(1):39, 2010: (1 + count) / (1 + B).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import rankdata

from bas.runs.run import Run
from bas.speech.acoustics import Contours
from bas.stats import CORRELATION, MIN_UNITS, Predictions, conclude, sample
from bas.stats.shares import pearson
from bas.studies.shares.attention import Attention
from bas.studies.shares.results import Correlation, Example, ModelAttention

ENERGY, F0, TIME, ENERGY_GIVEN, F0_GIVEN = MEASURES = ("energy", "F0", "time", "energy given time", "F0 given time")
LEAST = 5  # frames that a correlation needs; for pitch, voiced frames
SHIFTS = 50  # circular shifts of an utterance, or all where it has fewer frames
DRAWS = 999
QUANTILES = (0.0, 0.5, 1.0)
"""The utterances that are shown, as quantiles of the correlation with energy: lowest, median, highest."""


@dataclass(frozen=True)
class Heard:
    """One utterance, frame by frame, without the frames after the recording's end."""

    weights_ST: np.ndarray
    seconds_T: np.ndarray
    energy_T: np.ndarray  # NaN: unknown
    pitch_T: np.ndarray  # NaN: unvoiced
    behind: float  # share of the weight after the recording's end, on padding of the audio

    def correlations(self, shifts_K: np.ndarray) -> dict[str, np.ndarray]:
        """By measure `(S, K)`: correlations of each seed's weights shifted by each number of frames.

        A measure with too few known frames is missing. A correlation is 0 where one of the two is constant, and a
        partial one where time explains all of either.
        """
        seeds, frames = self.weights_ST.shape
        shifted_STK = self.weights_ST[:, (np.arange(frames)[:, None] - shifts_K) % frames]
        shifted_TC = np.moveaxis(shifted_STK, 0, 1).reshape(frames, -1)  # each seed's shifts, seed after seed
        rho_of = {}
        for name, given, x_T in (
            (ENERGY, ENERGY_GIVEN, self.energy_T),
            (F0, F0_GIVEN, self.pitch_T),
            (TIME, "", self.seconds_T),
        ):
            known_T = np.isfinite(x_T)
            if known_T.sum() < LEAST:
                continue
            rho_of[name] = _spearman(shifted_TC[known_T], x_T[known_T])
            if given:
                with_time_C = _spearman(shifted_TC[known_T], self.seconds_T[known_T])
                (with_x,) = _spearman(self.seconds_T[known_T, None], x_T[known_T])
                rho_of[given] = _partial(rho_of[name], with_time_C, with_x)
        return {name: rho_C.reshape(seeds, -1) for name, rho_C in rho_of.items()}


def _spearman(x_TK: np.ndarray, y_T: np.ndarray) -> np.ndarray:
    return pearson(np.broadcast_to(rankdata(y_T)[:, None], x_TK.shape), rankdata(x_TK, axis=0))


def _partial(xy_K: np.ndarray, xz_K: np.ndarray, yz: float) -> np.ndarray:
    """Correlation of x and y given z."""
    rest_K = np.sqrt(np.maximum((1 - xz_K**2) * (1 - yz**2), 0))
    partial_K: np.ndarray = np.where(rest_K > 1e-6, (xy_K - xz_K * yz) / np.maximum(rest_K, 1e-6), 0.0)
    return partial_K


def heard(run: Run, attention: Attention, contours: Contours, model: int) -> list[Heard]:
    """The tested utterances in order, with the weights of one model."""
    rate, stride = run.store.info.encoder["frame_rate"], run.plan.settings.stride
    utterances = []
    for u, id_ in enumerate(attention.ids):
        here = slice(*attention.offsets[u : u + 2].tolist())
        frames = run.store.num_frames(id_)
        edges_T = np.arange(0, frames, stride)
        contour = contours.of(id_, edges_T / rate, np.minimum(edges_T + stride, frames) / rate)
        seconds_T, weights_ST = attention.seconds_N[here], attention.weights_MSN[model, :, here].astype(np.float64)
        kept_T = seconds_T < contours.seconds[id_]
        energy_T, pitch_T = (x_T[kept_T] for x_T in contour)
        behind = float(weights_ST[:, ~kept_T].sum(1).mean())
        utterances.append(Heard(weights_ST[:, kept_T], seconds_T[kept_T], energy_T, pitch_T, behind))
    return utterances


def correlate(utterances: list[Heard], folds_U: np.ndarray, units_U: np.ndarray, seed: int = 0) -> ModelAttention:
    """By measure: mean over utterances, interval, p, whether it is shown, and how many utterances have it; or None.

    folds_U: the fold whose networks each utterance's weights are of.

    Also means over utterances: behind, see `Heard`; spread, the share of frames (0..1) over which the weights spread,
    by the exponential of their entropy; agreement, the rank correlation between two seeds (None: one seed).
    """
    rng = np.random.default_rng(seed)
    by_shift = []
    for one in utterances:
        frames = len(one.seconds_T)
        others = rng.permutation(frames)[:SHIFTS] if frames > SHIFTS else np.arange(frames)
        by_shift.append(one.correlations(np.concatenate([[0], others])))
    return ModelAttention(
        measures={name: _measure([of.get(name) for of in by_shift], folds_U, units_U, rng) for name in MEASURES},
        behind=float(np.mean([one.behind for one in utterances])),
        spread=float(np.mean([_spread(one.weights_ST) for one in utterances])),
        agreement=_agreement(utterances),
    )


def _measure(
    by_shift: list[np.ndarray | None], folds_U: np.ndarray, units_U: np.ndarray, rng: np.random.Generator
) -> Correlation | None:
    """by_shift: each utterance's correlations `(S, K)`, first unshifted, then under each shift of the null; None:
    missing."""
    measured = [x_SK for x_SK in by_shift if x_SK is not None]
    if not measured:
        return None
    has_U = [x_SK is not None for x_SK in by_shift]
    rho = Predictions(np.array([x_SK[:, 0] for x_SK in measured]).T, folds_U[has_U])
    sampled = sample(lambda kept_U, rho_SU: float(rho_SU[:, kept_U].mean()), units_U[has_U], (rho,))
    of = conclude(sampled, limits=CORRELATION)
    chance = np.zeros(DRAWS)
    for x_SK in measured:
        x_K = x_SK.mean(0)
        chance += x_K[1:][rng.integers(0, len(x_K) - 1, DRAWS)]
    count = int(np.count_nonzero(np.abs(chance / len(measured)) >= abs(of.value) - 1e-12))
    p = (1 + count) / (1 + DRAWS)
    shown = of.units >= MIN_UNITS and (of.low > 0 or of.high < 0) and p <= 0.05
    return Correlation(of.value, of.low, of.high, p, bool(shown), len(measured))


def _spread(weights_ST: np.ndarray) -> float:
    share_ST = weights_ST / np.maximum(weights_ST.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    entropy_S = -(share_ST * np.log(np.where(share_ST > 0, share_ST, 1))).sum(1)
    return float(np.exp(entropy_S).mean() / weights_ST.shape[1])


def _agreement(utterances: list[Heard]) -> float | None:
    seeds = len(utterances[0].weights_ST)
    if seeds < 2:
        return None
    pairs = list(combinations(range(seeds), 2))
    long = [one.weights_ST for one in utterances if one.weights_ST.shape[1] >= LEAST]
    rhos = [_spearman(w_ST[a][:, None], w_ST[b])[0] for w_ST in long for a, b in pairs]
    return float(np.mean(rhos)) if rhos else None


def examples(ids: tuple[str, ...], utterances: list[Heard]) -> tuple[Example, ...]:
    """The utterances at QUANTILES of the correlation with energy."""
    rho = {}
    for u, one in enumerate(utterances):
        energy = one.correlations(np.zeros(1, int)).get(ENERGY)
        if energy is not None:
            rho[u] = float(energy.mean())
    order = sorted(rho, key=lambda u: (rho[u], ids[u]))
    chosen = dict.fromkeys(order[round(q * (len(order) - 1))] for q in QUANTILES) if order else {}
    return tuple(
        Example(ids[u], rho[u], one.seconds_T, one.weights_ST, one.energy_T, one.pitch_T)
        for u in chosen
        for one in [utterances[u]]
    )
