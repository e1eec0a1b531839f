"""Recordings in every format, whole and cut off."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from bas.corpora import Utterance

RATE = 16_000
LENGTH = 2 * RATE
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, LENGTH)
PLAIN = {
    "wav": ("WAV", "PCM_16"),
    "rifx.wav": ("WAV", "PCM_24"),
    "extensible.wav": ("WAVEX", "FLOAT"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"),
    "ulaw.wav": ("WAV", "ULAW"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "aifc": ("AIFF", "FLOAT"),
    "svx": ("SVX", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "nist": ("NIST", "PCM_16"),
    "sph": ("NIST", "ULAW"),
}
"""Formats whose header says how many bytes of sound follow."""
PACKED = {
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}


def write(path: Path, wave: np.ndarray = NOISE, rate: int = RATE) -> Path:
    form, subtype = {**PLAIN, **PACKED}[path.name.split(".", 1)[1]]
    endian = "BIG" if "rifx" in path.name else None
    soundfile.write(path, wave, rate, format=form, subtype=subtype, endian=endian)
    return path


def part(path: Path, **more: Any) -> Utterance:
    return replace(Utterance("the-id", path), **more)


def cut(path: Path, share: float) -> Path:
    os.truncate(path, int(path.stat().st_size * share))
    return path


def mp3(path: Path, seconds: float, seed: int = 0) -> bytes:
    """Variable in its rate: quiet, then loud."""
    wave = np.random.default_rng(seed).normal(0, 0.1, int(44_100 * seconds)) * np.linspace(
        0.001, 1, int(44_100 * seconds)
    )
    with soundfile.SoundFile(path, "w", 44_100, 1, "MPEG_LAYER_III", format="MP3", bitrate_mode="VARIABLE") as file:
        for start in range(0, len(wave), 4096):
            file.write(wave[start : start + 4096])
    return path.read_bytes()
