"""Acoustic features: openSMILE's eGeMAPSv02 and three more; its ComParE 2016; loudness and pitch over time.

Axes: U utterances, F features, S samples, T frames, K frequencies, N frames of all utterances end to end.

References
    Eyben, Scherer, Schuller, Sundberg, André, Busso, Devillers, Epps, Laukka, Narayanan and Truong, *IEEE Trans.
        Affective Computing* 7(2), 2016: GeMAPS, its extended set of 88 functionals, and their groups.
    Triantafyllopoulos, Wagner, Wierstorf, Schmitt, Reichel, Eyben, Burkhardt and Schuller, *Interspeech* 2022: probing
        for duration, spectral entropy and zero-crossing rate besides.
    Schuller, Steidl, Batliner et al., *Interspeech* 2016: the challenge ComParE and its 6,373 functionals.
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
from bas.util.faults import judging
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
"""Low-level descriptors of eGeMAPS, and the seconds from a frame's time, where its window of 20 or 60 ms begins, to its
centre."""

FULL_SCALE = 32_767 / 32_768  # openSMILE's Python casts to 16 bit: larger samples would wrap around


@dataclass(frozen=True)
class Acoustic:
    """Features of utterances. NaN: the utterance has no such value, for instance no pitch where nothing is voiced."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    families: tuple[str, ...]  # of each name: one of FAMILIES, or OTHER
    values_UF: np.ndarray
    clipped_U: np.ndarray  # number of samples beyond full scale, which were clipped for openSMILE

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
        """The number of utterances without a value, for each feature that has any."""
        counts = np.isnan(self.values_UF).sum(0)
        return {name: int(count) for name, count in zip(self.names, counts, strict=True) if count}

    def save(self, path: Path) -> None:
        with replacing(path) as temporary, temporary.open("wb") as stream:
            texts = {name: np.array(getattr(self, name), np.str_) for name in ("ids", "names", "families")}
            np.savez(stream, values_UF=self.values_UF, clipped_U=self.clipped_U, **texts)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Acoustic:
        """Raises UserError naming the file when it cannot be read."""
        message = "damaged; delete it: the features are measured again"
        with judging(path, message), np.load(path, allow_pickle=False) as arrays:
            texts = {name: tuple(map(str, arrays[name])) for name in ("ids", "names", "families")}
            return cls(**texts, values_UF=arrays["values_UF"], clipped_U=arrays["clipped_U"])


def measure(waves: Iterable[tuple[str, Wave]], on_progress: Callable[[], None] = lambda: None) -> Acoustic:
    """The 88 functionals of eGeMAPSv02 and BESIDE for each `(id, 16 kHz wave)`; takes some 50 ms an utterance.

    Where openSMILE averages over no frame it writes 0, which could be a value: here it is NaN. An utterance too short
    for openSMILE (below about 40 ms) is NaN as well. openSMILE reads 16 bit: samples beyond full scale are clipped and
    counted. on_progress: called after each utterance.
    Raises UserError when openSMILE is not installed.
    """
    opensmile = _opensmile()
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    names = tuple(smile.feature_names)
    ids, rows, clipped = [], [], []
    for id_, wave in waves:
        ids.append(id_)
        clipped.append(int(np.count_nonzero(np.abs(wave) > 1)))
        with _defer_interrupts(), warnings.catch_warnings(action="ignore"):  # too short a wave: see `missing`
            values_F = smile.process_signal(np.clip(wave, -1, FULL_SCALE), SAMPLE_RATE).to_numpy()[0]
        rows.append([*_mask_undefined(names, values_F.astype(np.float64)), *_measure_beside(wave)])
        on_progress()
    assert rows, "no utterances"
    families = tuple(family_of(name) for name in names)
    values_UF = np.array(rows)
    return Acoustic(tuple(ids), names + BESIDE, families + (OTHER,) * len(BESIDE), values_UF, np.array(clipped))


@dataclass(frozen=True)
class Functionals:
    """The functionals of ComParE 2016. NaN: the utterance is too short for openSMILE (below about 60 ms)."""

    ids: tuple[str, ...]
    values_UF: np.ndarray  # float32
    opensmile: str  # its version

    def of(self, ids: Sequence[str]) -> np.ndarray:
        """`(U, F)` float64 of these utterances, in this order."""
        return self.values_UF[[self._rows[id_] for id_ in ids]].astype(np.float64)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {id_: row for row, id_ in enumerate(self.ids)}

    def save(self, path: Path) -> None:
        with replacing(path) as temporary, temporary.open("wb") as stream:
            texts = {"ids": np.array(self.ids, np.str_), "opensmile": np.array(self.opensmile)}
            np.savez(stream, values_UF=self.values_UF, **texts)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Functionals:
        """Raises UserError naming the file when it cannot be read."""
        message = "damaged; delete it: the functionals are measured again"
        with judging(path, message), np.load(path, allow_pickle=False) as arrays:
            return cls(tuple(map(str, arrays["ids"])), arrays["values_UF"], str(arrays["opensmile"]))


def functionals(waves: Iterable[tuple[str, Wave]], on_progress: Callable[[], None] = lambda: None) -> Functionals:
    """The 6,373 functionals of ComParE 2016 for each `(id, 16 kHz wave)`; samples beyond full scale are clipped.

    on_progress: called after each utterance. Raises UserError when openSMILE is not installed.
    """
    opensmile = _opensmile()
    smile = opensmile.Smile(opensmile.FeatureSet.ComParE_2016, opensmile.FeatureLevel.Functionals)
    ids, rows = [], []
    for id_, wave in waves:
        ids.append(id_)
        with _defer_interrupts(), warnings.catch_warnings(action="ignore"):  # too short a wave is NaN
            values_F = smile.process_signal(np.clip(wave, -1, FULL_SCALE), SAMPLE_RATE).to_numpy()[0]
        rows.append(np.where(np.isfinite(values_F), values_F, np.nan).astype(np.float32))
        on_progress()
    assert rows, "no utterances"
    return Functionals(tuple(ids), np.array(rows), opensmile_version())


CONTOURS = ("seconds_U", "frames_U", "loudness_N", "pitch_N")


@dataclass(frozen=True)
class Contours:
    """Loudness and pitch over time, a frame every STEP seconds, all utterances end to end."""

    ids: tuple[str, ...]
    seconds_U: np.ndarray  # of the recording
    frames_U: np.ndarray
    loudness_N: np.ndarray  # as perceived, in sone; NaN: the recording is too short
    pitch_N: np.ndarray  # semitones above 27.5 Hz; NaN: unvoiced
    opensmile: str  # its version

    def of(self, id_: str, starts_T: np.ndarray, stops_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean loudness and mean pitch of an utterance in each interval [start, stop) in seconds, each `(T,)`.

        A frame belongs to the interval that its centre is in. NaN: no frame, or for pitch no voiced frame.
        """
        frames = self._frames[id_]
        loudness_T, pitch_T = (
            _means(values_N[frames], centre, starts_T, stops_T)
            for values_N, (_, centre) in ((self.loudness_N, LOUDNESS), (self.pitch_N, PITCH))
        )
        return loudness_T, pitch_T

    @cached_property
    def seconds(self) -> dict[str, float]:
        """The recording's duration by utterance."""
        return dict(zip(self.ids, self.seconds_U.tolist(), strict=True))

    @cached_property
    def _frames(self) -> dict[str, slice]:
        edges = np.cumsum([0, *self.frames_U]).tolist()
        return {id_: slice(*edge) for id_, edge in zip(self.ids, pairwise(edges), strict=True)}

    def save(self, path: Path) -> None:
        with replacing(path) as temporary, temporary.open("wb") as stream:
            arrays = {name: getattr(self, name) for name in CONTOURS}
            texts = {"ids": np.array(self.ids, np.str_), "opensmile": np.array(self.opensmile)}
            np.savez(stream, **texts, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Contours:
        """Raises UserError naming the file when it cannot be read."""
        message = "damaged; delete it: the contours are measured again"
        with judging(path, message), np.load(path, allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in CONTOURS}
            return cls(tuple(map(str, arrays["ids"])), opensmile=str(arrays["opensmile"]), **values)


def _means(values_N: np.ndarray, centre: float, starts_T: np.ndarray, stops_T: np.ndarray) -> np.ndarray:
    times_N = STEP * np.arange(len(values_N)) + centre
    known_N = np.isfinite(values_N)
    sums_N, counts_N = (np.concatenate([[0], np.cumsum(x)]) for x in (np.where(known_N, values_N, 0), known_N))
    # Centres and limits are often both whole hundredths of a second: rounding must not decide.
    first_T, last_T = (times_N.searchsorted(edges_T - 1e-6) for edges_T in (starts_T, stops_T))
    count_T = counts_N[last_T] - counts_N[first_T]
    means_T: np.ndarray = np.where(count_T, (sums_N[last_T] - sums_N[first_T]) / np.maximum(count_T, 1), np.nan)
    return means_T


def contours(waves: Iterable[tuple[str, Wave]], on_progress: Callable[[], None] = lambda: None) -> Contours:
    """Loudness and pitch of each `(id, 16 kHz wave)`; takes some 50 ms each. Samples beyond full scale are clipped.

    An utterance too short for openSMILE (below about 60 ms) has one frame without a value.
    on_progress: called after each utterance. Raises UserError when openSMILE is not installed.
    """
    opensmile = _opensmile()
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.LowLevelDescriptors)
    ids, seconds, loudness, pitch = [], [], [], []
    for id_, wave in waves:
        ids.append(id_)
        seconds.append(len(wave) / SAMPLE_RATE)
        with _defer_interrupts(), warnings.catch_warnings(action="ignore"):
            table = smile.process_signal(np.clip(wave, -1, FULL_SCALE), SAMPLE_RATE)
        loudness.append(table[LOUDNESS[0]].to_numpy().astype(np.float64))
        semitones_T = table[PITCH[0]].to_numpy().astype(np.float64)
        pitch.append(np.where(semitones_T > 0, semitones_T, np.nan))  # 0: unvoiced
        on_progress()
    assert ids, "no utterances"
    frames = np.array([len(x_T) for x_T in loudness])
    loudness_N, pitch_N = np.concatenate(loudness), np.concatenate(pitch)
    return Contours(tuple(ids), np.array(seconds), frames, loudness_N, pitch_N, opensmile_version())


def fill_missing(values_UF: np.ndarray) -> np.ndarray:
    """The values with each NaN replaced by its column's mean; by 0 in a column without any value."""
    known_UF = np.isfinite(values_UF)
    means_F = np.where(known_UF, values_UF, 0).sum(0) / np.maximum(known_UF.sum(0), 1)
    return np.where(known_UF, values_UF, means_F)


@contextmanager
def _defer_interrupts() -> Iterator[None]:
    """Ctrl-C takes effect after the block: inside openSMILE's callbacks it would be lost, and the features with it."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):  # no interrupt arrives here
        yield
        return
    received: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if received:
        raise KeyboardInterrupt


def family_of(name: str) -> str:
    """The family of one of openSMILE's 88 names."""
    (family,) = [family for family, beginnings in FAMILIES.items() if name.startswith(beginnings)]
    return family


def opensmile_version() -> str:
    """The version that `measure` uses. Raises UserError when openSMILE is not installed."""
    return str(_opensmile().__version__)


def _opensmile() -> Any:
    try:
        import opensmile
    except ImportError as error:
        # Whoever came by make has it: `make dynamics` and `make shares` install it.
        message = "acoustic features need opensmile, which is not installed here"
        raise UserError(f"{message}: pip install 'bas[dynamics]'") from error
    return opensmile


def _mask_undefined(names: Sequence[str], values_F: np.ndarray) -> np.ndarray:
    """The values, with NaN for those that openSMILE averaged over no voiced frame, or over no unvoiced one."""
    unvoiced_F = np.array(["UV" in name for name in names])
    voiced_F = np.array(["sma3nz" in name for name in names]) & ~unvoiced_F
    pitch_F = np.array([name.startswith("F0semitone") for name in names])
    masked_F = values_F.copy()
    if not values_F[pitch_F].any():
        masked_F[voiced_F] = np.nan
    if not values_F[unvoiced_F].any():
        masked_F[unvoiced_F] = np.nan
    return np.where(np.isfinite(masked_F), masked_F, np.nan)


def _measure_beside(wave_S: Wave) -> tuple[float, float, float]:
    """The values of BESIDE. Frames of digital silence have no spectrum and are left out of the entropy."""
    crossings = np.count_nonzero((wave_S[1:] >= 0) != (wave_S[:-1] >= 0))
    padded_S = np.pad(wave_S.astype(np.float64), (0, max(0, FRAME - wave_S.size)))
    frames_TS = np.lib.stride_tricks.sliding_window_view(padded_S, FRAME)[::HOP]
    power_TK = np.abs(np.fft.rfft(frames_TS * np.hanning(FRAME))) ** 2
    power_TK = power_TK[power_TK.sum(1) > 0]
    share_TK = power_TK / power_TK.sum(1, keepdims=True)
    bits_T = -(share_TK * np.log2(np.where(share_TK > 0, share_TK, 1))).sum(1) / np.log2(FRAME // 2 + 1)
    seconds = wave_S.size / SAMPLE_RATE
    return seconds, float(bits_T.mean()) if bits_T.size else np.nan, crossings / seconds
