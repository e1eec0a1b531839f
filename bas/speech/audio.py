"""Read an utterance as a 16 kHz mono wave. soundfile decodes, scipy resamples, pyloudnorm measures loudness."""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from pyloudnorm import Meter
from scipy.signal import resample_poly

from bas.corpora import Utterance
from bas.errors import UserError

SAMPLE_RATE = 16_000
SLACK = 0.05  # seconds: annotated end times are often rounded up to the next centisecond
UNKNOWN = 2**63 - 1  # frames that libsndfile reports for a FLAC file that was written to a pipe
DENSEST = 5_000  # samples a byte: more than any format reaches even with silence
GATING_BLOCK = 6_400  # samples: the 400 ms of ITU-R BS.1770
PEAK = 0.25  # -12 dB full scale: a recording's peak is scaled to it before its loudness is measured
ZERO_CROSSINGS, ROLLOFF = 6, 0.99  # of the resampler's filter, as torchaudio has them
Wave = npt.NDArray[np.float32]


def duration(utterance: Utterance) -> float:
    """Seconds of the utterance, from the file's header alone. UserError as in `load`, as far as a header shows it."""
    start, stop, rate = _segment(utterance)
    return (stop - start) / rate


def size(utterance: Utterance) -> tuple[int, int] | None:
    """Number of samples and their rate in the file, from its header; None where that cannot be read."""
    try:
        start, stop, rate = _segment(utterance)
    except UserError:
        return None
    return stop - start, rate


def fingerprint(utterance: Utterance) -> str | None:
    """A hash of the utterance's samples, channels averaged, and rate: equal for equal sound, whatever the file's name
    or lossless format. None where it cannot be decoded. Two silent utterances differ: silence identifies nothing.
    """
    try:
        start, stop, rate = _segment(utterance)
        wave, _ = soundfile.read(utterance.audio, start=start, stop=stop, dtype="float32", always_2d=True)
    except (UserError, soundfile.SoundFileError, RuntimeError, MemoryError):
        return None
    mono = wave.mean(axis=1) + np.float32(0)  # a minus zero becomes zero
    alone = utterance.id if mono.size and (mono == mono[0]).all() else ""
    return hashlib.sha256(repr((rate, mono.size, alone)).encode() + mono.tobytes()).hexdigest()


def load(utterance: Utterance) -> Wave:
    """The utterance as `(samples,)` float32 at 16 kHz, channels averaged, full scale 1.0.

    Raises UserError naming the file when it cannot be read, is empty, ends before the utterance does, or holds NaN.
    """
    start, stop, rate = _segment(utterance)
    try:
        wave, _ = soundfile.read(utterance.audio, start=start, stop=stop, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise UserError(f"{utterance.audio}: cannot be decoded: {error}") from error
    except MemoryError as error:
        seconds = (stop - start) / rate
        message = f"its header says that it is {seconds:,.0f} s long, which does not fit into memory"
        raise UserError(f"{utterance.audio}: {utterance.id}: {message}") from error
    if len(wave) + SLACK * rate < stop - start:
        raise UserError(
            f"{utterance.audio}: {utterance.id} breaks off after {len(wave)} of {stop - start} samples: truncated?"
        )
    if not np.isfinite(wave).all():
        raise UserError(f"{utterance.audio}: {utterance.id} holds NaN or infinite samples")
    return resample(wave.mean(axis=1), rate)


def resample(wave: Wave, rate: int) -> Wave:
    """The wave `(samples,)` at `rate` Hz as `(ceil(samples * 16000 / rate),)` at 16 kHz.

    Band-limited interpolation with a Hann-windowed sinc; it equals torchaudio's `Resample` to the last bits, with which
    older features were made.
    """
    if rate == SAMPLE_RATE:
        return np.asarray(wave, dtype=np.float32)
    up, down, filter_K = _filter(rate)
    return np.asarray(resample_poly(wave.astype(np.float64), up, down, window=filter_K), dtype=np.float32)


def to_loudness(wave: Wave, target: float = -23.0) -> Wave:
    """The wave `(samples,)` at 16 kHz, scaled so that its gated loudness (ITU-R BS.1770-4) is `target`, in LUFS.

    Never clipped: samples may exceed 1.0. A wave shorter than one gating block of 400 ms is repeated to fill one before
    it is measured. The recording's level does not matter: the absolute gate (-70 LUFS) is applied with the peak at
    -12 dB full scale. The filters are pyloudnorm's, some 0.1 LU below the standard's own coefficients.
    Raises UserError for silence; the caller knows the utterance and puts its name before the message.
    """
    peak = float(np.abs(wave).max(initial=0.0))
    level = -np.inf
    if peak > 0:
        repeated = np.tile(wave, -(-GATING_BLOCK // wave.size)).astype(np.float64) * (PEAK / peak)
        level = Meter(SAMPLE_RATE).integrated_loudness(repeated) - 20 * math.log10(PEAK / peak)
    if not np.isfinite(level):  # where no block passes the gate
        raise UserError(f"silence: no gain brings it to {target:g} LUFS")
    return np.asarray(wave * 10 ** ((target - level) / 20), dtype=np.float32)


@lru_cache(maxsize=8)
def _filter(rate: int) -> tuple[int, int, npt.NDArray[np.float64]]:
    """The factors by which the rate is raised and then lowered, and the filter in between, `(K,)` of unit gain."""
    common = math.gcd(rate, SAMPLE_RATE)
    up, down = SAMPLE_RATE // common, rate // common
    cutoff = ROLLOFF * min(up, down)
    reach = math.ceil(ZERO_CROSSINGS * down / cutoff) * up
    # Each tap belongs to one output phase and one input sample. torchaudio rounds phases to float32, which changes
    # 44.1 kHz recordings by 1e-5 of full scale. We do the same, so that features equal those in older stores.
    tap_K = np.arange(-reach, reach + 1)
    phase_K = tap_K * pow(down, -1, up) % up
    seconds_K = (phase_K * down - tap_K) // up / down - (phase_K / up).astype(np.float32)
    t_K = np.clip(seconds_K * cutoff, -ZERO_CROSSINGS, ZERO_CROSSINGS)
    return up, down, np.sinc(t_K) * np.cos(np.pi * t_K / ZERO_CROSSINGS / 2) ** 2 * cutoff / (up * down)


@lru_cache(maxsize=4096)
def _header(path: Path, changed: int, size: int) -> Any:
    """The file's header, read once for the many segments of one recording unless the file has changed."""
    return soundfile.info(path)


def _segment(utterance: Utterance) -> tuple[int, int, int]:
    """The utterance's first sample, the sample after its last, and the file's rate in Hz."""
    try:
        status = utterance.audio.stat()
        info = _header(utterance.audio, status.st_mtime_ns, status.st_size)
    except (soundfile.SoundFileError, RuntimeError, OSError, TypeError) as error:  # TypeError: a headerless .raw
        raise UserError(f"{utterance.audio}: cannot be read as audio: {error}") from error
    frames, rate = int(info.frames), int(info.samplerate)
    if frames == UNKNOWN:
        raise UserError(f"{utterance.audio}: its header does not say how long it is; convert it to WAV or FLAC again")
    if frames > DENSEST * utterance.audio.stat().st_size:
        raise UserError(f"{utterance.audio}: its header says {frames / rate:,.0f} s, which the file is too small for")
    start = round(utterance.start * rate)
    stop = frames if utterance.end is None else round(utterance.end * rate)
    if stop > frames + SLACK * rate:
        length = frames / rate
        raise UserError(f"{utterance.audio}: {utterance.id} ends at {utterance.end} s but the file has {length:.2f} s")
    stop = min(stop, frames)
    if not 0 <= start < stop:
        raise UserError(f"{utterance.audio}: {utterance.id} holds no samples")
    return start, stop, rate
