"""What happens to speech between a mouth and a file: pitch and speed, rooms, noise, microphones, codecs.

All of it by well-known means: the phase vocoder (Flanagan and Golden, 1966), linear interpolation, rooms as
exponentially decaying noise (Moorer, *About this reverberation business*, 1979), codecs of libsndfile. What is
torchaudio's here and in the targets is all that this project has of it: it loads beside some builds of torch only.
"""

from __future__ import annotations

import io
from types import ModuleType

import numpy as np
import soundfile
import torch
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

from bas.encoders.base import TORCHAUDIO_FAULT
from bas.errors import UserError
from bas.speech.audio import SAMPLE_RATE, Wave

WINDOW, HOP = 512, 128


def torchaudio() -> ModuleType:
    """The module. Raises UserError if it is not installed, or its library does not load with this torch."""
    try:
        import torchaudio as module
    except Exception as error:
        message = f"torchaudio cannot be loaded beside torch {torch.__version__} ({TORCHAUDIO_FAULT or error})"
        remedy = "all else of bas works without it; for the recipe install both as constraints.txt has them"
        raise UserError(f"{' '.join(message.split())}; {remedy}") from error
    return module


def augment(wave: Wave, rng: np.random.Generator) -> Wave:
    """The wave `(samples,)`, changed in the order in which the world does it, each change at a chance of its own."""
    if rng.random() < 0.7:
        wave = pitch_and_speed(wave, pitch=2 ** rng.uniform(-0.4, 0.4), speed=rng.uniform(0.8, 1.25))
    if rng.random() < 0.3:
        wave = tilt(wave, db=rng.uniform(-8, 8))
    if rng.random() < 0.3:
        wave = room(wave, seconds=rng.uniform(0.1, 0.6), direct_db=rng.uniform(0, 12), rng=rng)
    if rng.random() < 0.4:
        wave = noise(wave, snr_db=rng.uniform(5, 35), colour=rng.uniform(0, 2), rng=rng)
    if rng.random() < 0.2:
        wave = codec(wave, str(rng.choice(["telephone", "MP3", "OGG"])))
    return wave


def pitch_and_speed(wave: Wave, pitch: float, speed: float) -> Wave:
    """All frequencies times `pitch` (so the vocal tract changes with the voice), so many times as fast.

    The phase vocoder stretches the time, interpolation then takes pitch and time together.
    """
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(torch.from_numpy(wave), WINDOW, HOP, window=window, return_complex=True)
    advance = torch.linspace(0, torch.pi * HOP, spectrum.shape[0])[:, None]
    stretched = torchaudio().functional.phase_vocoder(spectrum, speed / pitch, advance)
    slow = torch.istft(stretched, WINDOW, HOP, window=window).numpy()
    at = np.arange(0, slow.size - 1, pitch)
    if pitch > 1:  # little may fold back
        slow = sosfilt(butter(6, 0.98 / pitch, output="sos"), slow)
    return np.interp(at, np.arange(slow.size), slow).astype(np.float32)


def tilt(wave: Wave, db: float) -> Wave:
    """So much more, or less, above 1 kHz."""
    b, a = butter(1, 1000, "highpass", fs=SAMPLE_RATE)
    return np.asarray(wave + (10 ** (db / 20) - 1) * lfilter(b, a, wave), np.float32)


def room(wave: Wave, seconds: float, direct_db: float, rng: np.random.Generator) -> Wave:
    """In a room where sound falls by 60 dB in so many seconds; direct_db: of the direct sound over all echoes."""
    times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    echoes = rng.standard_normal(times.size) * 10 ** (-3 * times / seconds)
    echoes[: int(0.002 * SAMPLE_RATE)] = 0
    echoes *= 10 ** (-direct_db / 20) / max(float(np.linalg.norm(echoes)), 1e-9)
    echoes[0] = 1
    return np.asarray(fftconvolve(wave, echoes)[: wave.size], np.float32)


def noise(wave: Wave, snr_db: float, colour: float, rng: np.random.Generator) -> Wave:
    """With noise whose power falls with the frequency to the power of `colour`: 0 white, 1 pink, 2 brown."""
    frequencies = np.fft.rfftfreq(wave.size, 1 / SAMPLE_RATE)
    shape = np.maximum(frequencies, 40.0) ** (-colour / 2)
    hiss = np.fft.irfft(shape * np.fft.rfft(rng.standard_normal(wave.size)), wave.size)
    gain = np.sqrt(np.mean(wave**2) / max(float(np.mean(hiss**2)), 1e-12)) * 10 ** (-snr_db / 20)
    return np.asarray(wave + gain * hiss, np.float32)


def codec(wave: Wave, kind: str) -> Wave:
    """Through a telephone (300 to 3400 Hz, mu-law) or a lossy file of libsndfile's."""
    peak = max(float(np.abs(wave).max(initial=0.0)), 1e-6)
    level = wave / peak * 0.9
    if kind == "telephone":
        level = sosfilt(butter(4, (300, 3400), "bandpass", fs=SAMPLE_RATE, output="sos"), level)
        mu_law = torchaudio().functional
        coded = mu_law.mu_law_encoding(torch.from_numpy(np.asarray(level, np.float32)).clamp(-1, 1), 256)
        return np.asarray(mu_law.mu_law_decoding(coded, 256).numpy() * peak, np.float32)
    stream = io.BytesIO()
    soundfile.write(stream, level, SAMPLE_RATE, format=kind, compression_level=0.8)
    stream.seek(0)
    heard, _ = soundfile.read(stream, dtype="float32")
    heard = np.pad(heard, (0, max(0, wave.size - heard.size)))[: wave.size]
    return np.asarray(heard / 0.9 * peak, np.float32)
