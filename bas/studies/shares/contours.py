"""Does attention follow the voice? The weights of each test utterance against its loudness, its pitch and the time.

Rank correlations (Spearman) over an utterance's frames, then the mean over utterances. A query that is the last state
may just prefer the end, and speech grows softer towards it: so also with loudness and pitch given the time (partial).
Frames are those after the stride; the weights are the mean over seeds.

Interval: jackknife over units (`bas.stats.interval`), so whether other speakers, and the networks of their folds, would
show it. p: whether these weights do, against circular shifts of each utterance's weights, which keep how smooth and how
peaked they are, two-sided; (1 + count) / (1 + DRAWS). Shown: both, and MIN_UNITS units.

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
from bas.stats import MIN_UNITS, interval
from bas.stats.shares import pearson
from bas.studies.shares.attention import Attention
from bas.studies.shares.results import Correlation, Example, ModelAttention

ENERGY, F0, TIME, ENERGY_GIVEN, F0_GIVEN = MEASURES = ("energy", "F0", "time", "energy given time", "F0 given time")
LEAST = 5  # frames that a correlation needs, voiced ones where it is with pitch
SHIFTS = 50  # of an utterance that are tried; all where it has fewer frames
DRAWS = 999
QUANTILES = (0.0, 0.5, 1.0)
"""The utterances that are shown, by their correlation with energy: the lowest, the one in the middle, the highest."""


@dataclass(frozen=True)
class Heard:
    """One utterance on its frames; those behind the recording's end are left out."""

    weights_ST: np.ndarray
    seconds_T: np.ndarray
    energy_T: np.ndarray  # NaN: not known
    pitch_T: np.ndarray  # NaN: not voiced
    behind: float  # how much of the weight lies behind the recording's end, on audio-level padding

    def correlations(self, shifts_K: np.ndarray) -> dict[str, np.ndarray]:
        """By measure `(K,)`, of the weights shifted by so many frames; where too few frames are known, it is not there.

        0 where one of the two never changes, and where nothing is left once the time is given.
        """
        weights_T = self.weights_ST.mean(0)
        shifted_TK = weights_T[(np.arange(len(weights_T))[:, None] - shifts_K) % len(weights_T)]
        found = {}
        for name, given, x_T in (
            (ENERGY, ENERGY_GIVEN, self.energy_T),
            (F0, F0_GIVEN, self.pitch_T),
            (TIME, "", self.seconds_T),
        ):
            known_T = np.isfinite(x_T)
            if known_T.sum() < LEAST:
                continue
            found[name] = _spearman(shifted_TK[known_T], x_T[known_T])
            if given:
                with_time_K = _spearman(shifted_TK[known_T], self.seconds_T[known_T])
                (with_x,) = _spearman(self.seconds_T[known_T, None], x_T[known_T])
                found[given] = _partial(found[name], with_time_K, with_x)
        return found


def _spearman(x_TK: np.ndarray, y_T: np.ndarray) -> np.ndarray:
    return pearson(np.broadcast_to(rankdata(y_T)[:, None], x_TK.shape), rankdata(x_TK, axis=0))


def _partial(xy_K: np.ndarray, xz_K: np.ndarray, yz: float) -> np.ndarray:
    """Correlation of x and y given z."""
    rest_K = np.sqrt(np.maximum((1 - xz_K**2) * (1 - yz**2), 0))
    found_K: np.ndarray = np.where(rest_K > 1e-6, (xy_K - xz_K * yz) / np.maximum(rest_K, 1e-6), 0.0)
    return found_K


def heard(run: Run, found: Attention, contours: Contours, model: int) -> list[Heard]:
    """Each of the tested utterances, in their order."""
    rate, stride = run.store.info.encoder["frame_rate"], run.plan.settings.stride
    utterances = []
    for u, id_ in enumerate(found.ids):
        here = slice(*found.offsets[u : u + 2].tolist())
        frames = run.store.num_frames(id_)
        edges_T = np.arange(0, frames, stride)
        contour = contours.of(id_, edges_T / rate, np.minimum(edges_T + stride, frames) / rate)
        seconds_T, weights_ST = found.seconds_N[here], found.weights_MSN[model, :, here].astype(np.float64)
        kept_T = seconds_T < contours.seconds[id_]
        energy_T, pitch_T = (x_T[kept_T] for x_T in contour)
        behind = float(weights_ST[:, ~kept_T].sum(1).mean())
        utterances.append(Heard(weights_ST[:, kept_T], seconds_T[kept_T], energy_T, pitch_T, behind))
    return utterances


def correlate(utterances: list[Heard], units_U: np.ndarray, seed: int = 0) -> ModelAttention:
    """By measure: mean over utterances, interval, p, whether it is shown, and how many utterances have it; None: none.

    Beside them, means over utterances: behind, see `Heard`; spread, over how many of the frames (0..1) the weights
    spread, as the exponential of their entropy; agreement, the rank correlation between two seeds (None: one seed).
    """
    rng = np.random.default_rng(seed)
    by_shift = []
    for one in utterances:
        frames = len(one.seconds_T)
        others = rng.permutation(frames)[:SHIFTS] if frames > SHIFTS else np.arange(frames)
        by_shift.append(one.correlations(np.concatenate([[0], others])))
    return ModelAttention(
        measures={name: _measure([of.get(name) for of in by_shift], units_U, rng) for name in MEASURES},
        behind=float(np.mean([one.behind for one in utterances])),
        spread=float(np.mean([_spread(one.weights_ST) for one in utterances])),
        agreement=_agreement(utterances),
    )


def _measure(by_shift: list[np.ndarray | None], units_U: np.ndarray, rng: np.random.Generator) -> Correlation | None:
    """by_shift: of each utterance, first unshifted, then under each shift that chance may draw."""
    known = [x for x in by_shift if x is not None]
    if not known:
        return None
    units = units_U[[x is not None for x in by_shift]]
    rho = np.array([x[0] for x in known])
    mean, low, high = interval(lambda kept: float(rho[kept].mean()), units)
    chance = np.zeros(DRAWS)
    for x in known:
        chance += x[1:][rng.integers(0, len(x) - 1, DRAWS)]
    count = int(np.count_nonzero(np.abs(chance / len(known)) >= abs(mean) - 1e-12))
    p = (1 + count) / (1 + DRAWS)
    shown = len(set(units)) >= MIN_UNITS and (low > 0 or high < 0) and p <= 0.05
    return Correlation(mean, low, high, p, bool(shown), len(known))


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
    found = [_spearman(w_ST[a][:, None], w_ST[b])[0] for w_ST in long for a, b in pairs]
    return float(np.mean(found)) if found else None


def examples(ids: tuple[str, ...], utterances: list[Heard]) -> tuple[Example, ...]:
    """A few utterances: QUANTILES of the correlation with energy."""
    rho = {}
    for u, one in enumerate(utterances):
        found = one.correlations(np.zeros(1, int)).get(ENERGY)
        if found is not None:
            rho[u] = float(found[0])
    order = sorted(rho, key=lambda u: (rho[u], ids[u]))
    chosen = dict.fromkeys(order[round(q * (len(order) - 1))] for q in QUANTILES) if order else {}
    return tuple(
        Example(ids[u], rho[u], one.seconds_T, one.weights_ST, one.energy_T, one.pitch_T)
        for u in chosen
        for one in [utterances[u]]
    )
