"""Acoustic features that have names: eGeMAPSv02 by openSMILE, and three more; loudness and pitch over time.

Axes: U utterances, F features, S samples, T frames, K frequencies, N frames of all utterances end to end.

References
    Eyben, Scherer, Schuller, Sundberg, André, Busso, Devillers, Epps, Laukka, Narayanan and Truong, *IEEE Trans.
        Affective Computing* 7(2), 2016: GeMAPS, its extended set of 88 functionals, and their groups.
    Triantafyllopoulos, Wagner, Wierstorf, Schmitt, Reichel, Eyben, Burkhardt and Schuller, *Interspeech* 2022: probing
        for duration, spectral entropy and zero-crossing rate besides.
"""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bas.errors import UserError
from bas.speech.audio import SAMPLE_RATE, Wave
from bas.util.files import replacing

FORMANTS = ("F1", "F2", "F3")
FAMILIES = {
    "frequency": ("F0semitone", "jitterLocal", *(f + of for f in FORMANTS for of in ("frequency", "bandwidth"))),
    "energy": ("loudness_", "shimmerLocal", "HNR", "equivalentSoundLevel"),
    "spectral": (
        *("spectralFlux", "mfcc", "logRelF0", "alphaRatio", "hammarbergIndex", "slope"),
        *(f + "amplitude" for f in FORMANTS),
    ),
    "temporal": ("loudnessPeaksPerSec", "Voiced", "MeanVoiced", "StddevVoiced", "MeanUnvoiced", "StddevUnvoiced"),
}
"""The groups of Eyben et al. 2016, by the beginnings of openSMILE's names. Each of the 88 is in one."""

BESIDE = ("duration", "spectral entropy", "zero-crossing rate")
"""Seconds; of a frame's power spectrum, the mean over frames, 0..1; changes of sign a second."""

OTHER = "other"  # the family of BESIDE
FRAME, HOP = 400, 160  # samples: 25 and 10 ms
STEP = 0.01  # seconds from frame to frame of a contour
LOUDNESS, PITCH = ("Loudness_sma3", 0.01), ("F0semitoneFrom27.5Hz_sma3nz", 0.03)
"""Low-level descriptors of eGeMAPS, and the seconds from a frame's time to its centre: windows of 20 and of 60 ms that
begin there."""

FULL_SCALE = 32_767 / 32_768  # openSMILE's Python casts to 16 bit, and what is beyond wraps around


@dataclass(frozen=True)
class Acoustic:
    """Features of utterances. NaN: it has none, for instance a pitch where nothing is voiced."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    families: tuple[str, ...]  # of each name: one of FAMILIES, or OTHER
    values_UF: np.ndarray
    clipped_U: np.ndarray  # samples beyond full scale: openSMILE read them clipped

    def __post_init__(self) -> None:
        assert self.values_UF.shape == (len(self.ids), len(self.names)), self.values_UF.shape
        assert len(self.families) == len(self.names)
        assert self.clipped_U.shape == (len(self.ids),)

    def of(self, ids: Sequence[str]) -> Acoustic:
        """These utterances, in this order."""
        where = {id_: row for row, id_ in enumerate(self.ids)}
        rows = [where[id_] for id_ in ids]
        return Acoustic(tuple(ids), self.names, self.families, self.values_UF[rows], self.clipped_U[rows])

    def family(self, *families: str) -> np.ndarray:
        """`(U, columns)` of these families, in openSMILE's order; NaN where there is no value."""
        return self.values_UF[:, [family in families for family in self.families]]

    @property
    def missing(self) -> dict[str, int]:
        """How many utterances have no value, by feature, where any has none."""
        counts = np.isnan(self.values_UF).sum(0)
        return {name: int(count) for name, count in zip(self.names, counts, strict=True) if count}

    def save(self, path: Path) -> None:
        with replacing(path) as temporary, temporary.open("wb") as stream:
            texts = {name: np.array(getattr(self, name), np.str_) for name in ("ids", "names", "families")}
            np.savez(stream, values_UF=self.values_UF, clipped_U=self.clipped_U, **texts)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Acoustic:
        """Raises UserError naming the file when it cannot be read."""
        try:
            with np.load(path, allow_pickle=False) as held:
                texts = {name: tuple(map(str, held[name])) for name in ("ids", "names", "families")}
                return cls(**texts, values_UF=held["values_UF"], clipped_U=held["clipped_U"])
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file") from error
        except Exception as error:  # numpy's and zipfile's readers raise whatever the bytes lead them to
            raise UserError(f"{path}: damaged; delete it: the features are measured anew") from error


def measure(waves: Iterable[tuple[str, Wave]], on_progress: Callable[[], None] = lambda: None) -> Acoustic:
    """The 88 functionals of eGeMAPSv02 and BESIDE for each `(id, 16 kHz wave)`, some 50 ms each.

    openSMILE writes 0 where it averages over no frame, which is a pitch like any other: NaN stands for it here. So it
    does for an utterance too short for openSMILE (below about 40 ms). It reads 16 bit: louder samples are clipped,
    and counted. on_progress: called after each utterance.
    Raises UserError when openSMILE is not installed.
    """
    opensmile = _opensmile()
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    names = tuple(smile.feature_names)
    ids, rows, clipped = [], [], []
    for id_, wave in waves:
        ids.append(id_)
        clipped.append(int(np.count_nonzero(np.abs(wave) > 1)))
        with _interrupts_later(), warnings.catch_warnings(action="ignore"):  # too short: `missing` tells
            found_F = smile.process_signal(np.clip(wave, -1, FULL_SCALE), SAMPLE_RATE).to_numpy()[0]
        rows.append([*_told(names, found_F.astype(np.float64)), *_beside(wave)])
        on_progress()
    assert rows, "no utterances"
    families = tuple(family_of(name) for name in names)
    values_UF = np.array(rows)
    return Acoustic(tuple(ids), names + BESIDE, families + (OTHER,) * len(BESIDE), values_UF, np.array(clipped))


CONTOURS = ("seconds_U", "frames_U", "loudness_N", "pitch_N")


@dataclass(frozen=True)
class Contours:
    """Loudness and pitch over time, a frame every STEP seconds; of all utterances end to end."""

    ids: tuple[str, ...]
    seconds_U: np.ndarray  # of the recording
    frames_U: np.ndarray
    loudness_N: np.ndarray  # as perceived, in sone; NaN: too short to tell
    pitch_N: np.ndarray  # semitones above 27.5 Hz; NaN: unvoiced

    def of(self, id_: str, starts_T: np.ndarray, stops_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean loudness and mean pitch of an utterance in each stretch [start, stop) of seconds, each `(T,)`.

        Frames count where their centres are. NaN: there is none, or none that is voiced.
        """
        here = self._frames[id_]
        loudness_T, pitch_T = (
            _means(values_N[here], centre, starts_T, stops_T)
            for values_N, (_, centre) in ((self.loudness_N, LOUDNESS), (self.pitch_N, PITCH))
        )
        return loudness_T, pitch_T

    @cached_property
    def seconds(self) -> dict[str, float]:
        """By utterance, of the recording."""
        return dict(zip(self.ids, self.seconds_U.tolist(), strict=True))

    @cached_property
    def _frames(self) -> dict[str, slice]:
        edges = np.cumsum([0, *self.frames_U]).tolist()
        return {id_: slice(*edge) for id_, edge in zip(self.ids, pairwise(edges), strict=True)}

    def save(self, path: Path) -> None:
        with replacing(path) as temporary, temporary.open("wb") as stream:
            arrays = {name: getattr(self, name) for name in CONTOURS}
            np.savez(stream, ids=np.array(self.ids, np.str_), **arrays)

    @classmethod
    def load(cls, path: Path) -> Contours:
        """Raises UserError naming the file when it cannot be read."""
        try:
            with np.load(path, allow_pickle=False) as held:
                return cls(tuple(map(str, held["ids"])), *(held[name] for name in CONTOURS))
        except Exception as error:  # numpy's and zipfile's readers raise whatever the bytes lead them to
            raise UserError(f"{path}: damaged; delete it: the contours are measured anew") from error


def _means(values_N: np.ndarray, centre: float, starts_T: np.ndarray, stops_T: np.ndarray) -> np.ndarray:
    times_N = STEP * np.arange(len(values_N)) + centre
    known_N = np.isfinite(values_N)
    sums_N, counts_N = (np.concatenate([[0], np.cumsum(x)]) for x in (np.where(known_N, values_N, 0), known_N))
    # Centres and limits are both whole hundredths often enough: rounding decides nothing.
    first_T, last_T = (times_N.searchsorted(edges_T - 1e-6) for edges_T in (starts_T, stops_T))
    count_T = counts_N[last_T] - counts_N[first_T]
    means_T: np.ndarray = np.where(count_T, (sums_N[last_T] - sums_N[first_T]) / np.maximum(count_T, 1), np.nan)
    return means_T


def contours(waves: Iterable[tuple[str, Wave]], on_progress: Callable[[], None] = lambda: None) -> Contours:
    """Loudness and pitch of each `(id, 16 kHz wave)`, some 50 ms each; what is beyond full scale is clipped.

    An utterance too short for openSMILE (below about 60 ms) has one frame without a value.
    on_progress: called after each utterance. Raises UserError when openSMILE is not installed.
    """
    opensmile = _opensmile()
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.LowLevelDescriptors)
    ids, seconds, loudness, pitch = [], [], [], []
    for id_, wave in waves:
        ids.append(id_)
        seconds.append(len(wave) / SAMPLE_RATE)
        with _interrupts_later(), warnings.catch_warnings(action="ignore"):
            found = smile.process_signal(np.clip(wave, -1, FULL_SCALE), SAMPLE_RATE)
        loudness.append(found[LOUDNESS[0]].to_numpy().astype(np.float64))
        semitones_T = found[PITCH[0]].to_numpy().astype(np.float64)
        pitch.append(np.where(semitones_T > 0, semitones_T, np.nan))  # 0: unvoiced
        on_progress()
    assert ids, "no utterances"
    frames = np.array([len(x_T) for x_T in loudness])
    return Contours(tuple(ids), np.array(seconds), frames, np.concatenate(loudness), np.concatenate(pitch))


def filled(values_UF: np.ndarray) -> np.ndarray:
    """A NaN as the mean of what is known of its column; 0 throughout where nothing is."""
    known_UF = np.isfinite(values_UF)
    means_F = np.where(known_UF, values_UF, 0).sum(0) / np.maximum(known_UF.sum(0), 1)
    return np.where(known_UF, values_UF, means_F)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C takes effect after the block: inside openSMILE's callbacks it would be lost, and the features with it."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):  # where none is heard
        yield
        return
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        raise KeyboardInterrupt


def family_of(name: str) -> str:
    """Of one of the 88 names."""
    (family,) = [family for family, beginnings in FAMILIES.items() if name.startswith(beginnings)]
    return family


def opensmile_version() -> str:
    """What `measure` measures with. Raises UserError when it is not installed."""
    return str(_opensmile().__version__)


def _opensmile() -> Any:
    try:
        import opensmile
    except ImportError as error:
        raise UserError(
            "acoustic features need opensmile, which is not installed: `make dynamics` and `make shares` install it"
        ) from error
    return opensmile


def _told(names: Sequence[str], values_F: np.ndarray) -> np.ndarray:
    """NaN for what openSMILE averaged over no voiced, or over no unvoiced, frame."""
    unvoiced_F = np.array(["UV" in name for name in names])
    voiced_F = np.array(["sma3nz" in name for name in names]) & ~unvoiced_F
    pitch_F = np.array([name.startswith("F0semitone") for name in names])
    told_F = values_F.copy()
    if not values_F[pitch_F].any():
        told_F[voiced_F] = np.nan
    if not values_F[unvoiced_F].any():
        told_F[unvoiced_F] = np.nan
    return np.where(np.isfinite(told_F), told_F, np.nan)


def _beside(wave_S: Wave) -> tuple[float, float, float]:
    """Duration, spectral entropy and zero-crossing rate; frames of digital silence have no spectrum, so none counts."""
    crossings = np.count_nonzero((wave_S[1:] >= 0) != (wave_S[:-1] >= 0))
    padded_S = np.pad(wave_S.astype(np.float64), (0, max(0, FRAME - wave_S.size)))
    frames_TS = np.lib.stride_tricks.sliding_window_view(padded_S, FRAME)[::HOP]
    power_TK = np.abs(np.fft.rfft(frames_TS * np.hanning(FRAME))) ** 2
    power_TK = power_TK[power_TK.sum(1) > 0]
    share_TK = power_TK / power_TK.sum(1, keepdims=True)
    bits_T = -(share_TK * np.log2(np.where(share_TK > 0, share_TK, 1))).sum(1) / np.log2(FRAME // 2 + 1)
    seconds = wave_S.size / SAMPLE_RATE
    return seconds, float(bits_T.mean()) if bits_T.size else np.nan, crossings / seconds
