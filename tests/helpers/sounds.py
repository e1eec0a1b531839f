"""Recordings written on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from bas.corpora import Corpus, Utterance

# Pairs of equal length: some utterances share a batch.
DURATIONS = (0.3, 0.5, 0.3, 0.41, 0.5, 0.2, 0.41, 0.6)


def tone(
    path: Path, seconds: float = 0.5, rate: int = 16_000, hertz: float = 220.0, subtype: str | None = None
) -> Path:
    """A mono sine of amplitude 0.5; the suffix names the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, wave, rate, subtype=subtype)
    return path


def tones(folder: Path, durations: tuple[float, ...] = DURATIONS) -> Corpus:
    """A corpus of sines, no two alike."""
    utterances = [
        Utterance(f"u{i:02d}", tone(folder / f"u{i:02d}.wav", seconds, hertz=200 + 17 * i), label="ab"[i % 2])
        for i, seconds in enumerate(durations)
    ]
    return Corpus("tones", tuple(utterances), protocol="own", unit="speaker")
