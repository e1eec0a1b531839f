"""One utterance in, 16 kHz mono float out. Decoding is soundfile's: torchaudio's own needs codecs that few have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from torchaudio.functional import resample

from bas.corpora import Utterance
from bas.errors import UserError

SAMPLE_RATE = 16_000
Wave = npt.NDArray[np.float32]


def duration(utterance: Utterance) -> float:
    """Seconds of the utterance, from the file's header alone."""
    info = _info(utterance.audio)
    end = info.frames / info.samplerate if utterance.end is None else utterance.end
    return float(end - utterance.start)


def load(utterance: Utterance) -> Wave:
    """The utterance as `(samples,)` float32 at 16 kHz, channels averaged, full scale 1.0.

    Raises UserError naming the file when it cannot be read, is empty, ends before the utterance does, or holds NaN.
    """
    info = _info(utterance.audio)
    start = round(utterance.start * info.samplerate)
    stop = info.frames if utterance.end is None else round(utterance.end * info.samplerate)
    # A segment's end is often rounded up to the next centisecond by whoever wrote the times.
    if stop > info.frames + 0.05 * info.samplerate:
        length = info.frames / info.samplerate
        raise UserError(f"{utterance.audio}: {utterance.id} ends at {utterance.end} s but the file has {length:.2f} s")
    try:
        wave, rate = soundfile.read(utterance.audio, start=start, stop=stop, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise UserError(f"{utterance.audio}: cannot be decoded: {error}") from error
    if not len(wave):
        raise UserError(f"{utterance.audio}: {utterance.id} holds no samples")
    if not np.isfinite(wave).all():
        raise UserError(f"{utterance.audio}: {utterance.id} holds NaN or infinite samples")
    mono = torch.from_numpy(wave.mean(axis=1))
    return np.asarray(resample(mono, rate, SAMPLE_RATE).numpy(), dtype=np.float32)


def _info(path: Path) -> soundfile._SoundFileInfo:
    try:
        return soundfile.info(path)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise UserError(f"{path}: cannot be read as audio: {error}") from error
