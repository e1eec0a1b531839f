"""Loudness against the standard's own sine and against its filters and gates, written out here."""

# mypy: disable-error-code="arg-type,operator"

from __future__ import annotations

import math

import numpy as np
import pytest
from refusals import refusal
from scipy.signal import lfilter

from bas.speech.audio import to_loudness

RATE = 16_000


def reference(wave: np.ndarray) -> float:
    """LUFS by ITU-R BS.1770-4: its two filters, re-derived at 16 kHz from the analogue prototype, and its two gates.

    The prototype's numbers give at 48 kHz the coefficients that the standard prints.
    """
    k, q = math.tan(math.pi * 1681.974450955533 / RATE), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    a0 = 1 + k / q + k * k
    shelf = np.array([high + band * k / q + k * k, 2 * (k * k - high), high - band * k / q + k * k]) / a0
    x = lfilter(shelf, np.array([a0, 2 * (k * k - 1), 1 - k / q + k * k]) / a0, wave.astype(np.float64))
    k, q = math.tan(math.pi * 38.13547087602444 / RATE), 0.5003270373238773
    a0 = 1 + k / q + k * k
    x = lfilter([1, -2, 1], np.array([a0, 2 * (k * k - 1), 1 - k / q + k * k]) / a0, x)
    block, hop = round(0.4 * RATE), round(0.1 * RATE)
    energy = np.array([np.mean(x[i : i + block] ** 2) for i in range(0, len(x) - block + 1, hop)])
    level = -0.691 + 10 * np.log10(energy + 1e-30)
    gate = -0.691 + 10 * math.log10(energy[level > -70].mean()) - 10
    return -0.691 + 10 * math.log10(energy[(level > -70) & (level > gate)].mean())


def sine(seconds: float = 3.0, amplitude: float = 1.0, hertz: float = 997.0) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def speechlike(seconds: float = 4.0, seed: int = 0) -> np.ndarray:
    """Noise whose level moves by 60 dB, with a pause of digital silence and one click at full scale."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    wave = 0.1 * rng.standard_normal(time.size) * 10 ** (-1.5 + 1.5 * np.sin(2 * np.pi * 0.7 * time))
    wave[RATE : 2 * RATE] = 0
    wave[100] = 1.0
    return np.clip(wave, -1, 1).astype(np.float32)


def test_the_standards_sine_at_full_scale_is_3_lufs_below_it() -> None:
    """997 Hz, 0 dB full scale, one channel: -3.01 LKFS. Thus a gain of -19.99 dB brings it to -23."""
    gain = 20 * math.log10(float(np.abs(to_loudness(sine(10.0))).max()))
    assert gain == pytest.approx(-23 + 3.01, abs=0.1)


@pytest.mark.parametrize("target", [-23.0, -30.0])
@pytest.mark.parametrize("amplitude", [0.01, 0.3, 1.0])
def test_the_result_has_the_target_by_another_meter(target: float, amplitude: float) -> None:
    for wave in (sine(amplitude=amplitude), amplitude * speechlike()):
        out = to_loudness(wave, target)
        assert out.dtype == np.float32
        assert out.shape == wave.shape
        assert reference(out) == pytest.approx(target, abs=0.2)
        gain = out[wave != 0] / wave[wave != 0]
        assert np.ptp(gain) < 1e-3 * gain.mean()  # one gain for all samples: nothing is clipped


def test_full_scale_is_not_clipped_by_the_meter() -> None:
    """Two waves that are one but for their level come out alike: torchaudio's filters clip at 1.0."""
    bright = sine(hertz=3_000.0)  # gains 4 dB in the shelf
    assert np.abs(to_loudness(bright) - to_loudness(0.1 * bright)).max() < 1e-6
    assert to_loudness(sine(), -1.0).max() > 1.2


def test_pauses_do_not_count() -> None:
    tone = sine(4.0, 0.2)
    paused = np.concatenate([tone, np.zeros(4 * RATE, np.float32)])
    assert to_loudness(paused)[: tone.size].max() == pytest.approx(to_loudness(tone).max(), rel=0.05)


@pytest.mark.parametrize("samples", [1_600, 6_399, 6_400, 6_401])
def test_a_clip_shorter_than_a_block_is_measured_repeated(samples: int) -> None:
    tone = sine(samples / RATE, 0.2, hertz=1_000.0)  # whole periods: repeated it is the same tone
    assert to_loudness(tone).max() == pytest.approx(to_loudness(sine(4.0, 0.2, hertz=1_000.0)).max(), rel=0.01)


@pytest.mark.parametrize("samples", [0, 100, 16_000])
def test_silence_is_refused(samples: int) -> None:
    assert "silence" in refusal(to_loudness, np.zeros(samples, np.float32))
