"""Any sample rate in bounded time and memory; usual rates as before, bit for bit."""

from __future__ import annotations

import math
import struct
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from refusals import refusal
from scipy.signal import resample_poly
from sounds import tone

from bas.corpora import Utterance
from bas.speech import audio

USUAL = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000)
ODD = (22_255, 22_254, 11_127, 8_001, 22_049, 44_056, 47_952, 99_991, 100_003, 192_001, 400_009, 767_999)


def of_version_0_4(wave: np.ndarray, rate: int) -> np.ndarray:
    """The resampler that made the stores there are, without a bound."""
    common = math.gcd(rate, 16_000)
    up, down = 16_000 // common, rate // common
    cutoff = 0.99 * min(up, down)
    reach = math.ceil(6 * down / cutoff) * up
    tap_K = np.arange(-reach, reach + 1)
    phase_K = tap_K * pow(down, -1, up) % up
    seconds_K = (phase_K * down - tap_K) // up / down - (phase_K / up).astype(np.float32)
    t_K = np.clip(seconds_K * cutoff, -6, 6)
    filter_K = np.sinc(t_K) * np.cos(np.pi * t_K / 6 / 2) ** 2 * cutoff / (up * down)
    return np.asarray(resample_poly(wave.astype(np.float64), up, down, window=filter_K), dtype=np.float32)


@pytest.mark.parametrize("rate", [*USUAL[:3], *USUAL[4:], 8_001, 22_255])
def test_rates_that_could_be_resampled_keep_their_bits(rate: int) -> None:
    noise = np.random.default_rng(rate).normal(0, 0.1, rate).astype(np.float32)
    assert np.array_equal(audio.resample(noise, rate), of_version_0_4(noise, rate))


@pytest.mark.parametrize("rate", ODD)
def test_an_odd_rate_costs_little_and_is_right(rate: int) -> None:
    audio._filter.cache_clear()
    wave = (0.5 * np.sin(2 * np.pi * 220 * np.arange(rate) / rate)).astype(np.float32)
    tracemalloc.start()
    found = audio.resample(wave, rate)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150 * 2**20
    expected = 0.5 * np.sin(2 * np.pi * 220 * np.arange(len(found)) / 16_000)
    assert np.abs(found - expected)[500:-500].max() < 5e-3  # the last sample 1e-5 s late changes it by 3e-3
    assert len(found) == pytest.approx(16_000, abs=2)


def test_a_ratio_that_is_not_exact_is_off_by_less_than_the_bound() -> None:
    rates = range(audio.LARGEST_FACTOR + 1, audio.HIGHEST_RATE + 1, 37)
    ratios = {rate: audio.ratio_of(rate) for rate in rates if math.gcd(rate, 16_000) == 1}
    assert all(max(r.numerator, r.denominator) <= audio.LARGEST_FACTOR for r in ratios.values())
    errors = [abs(float(r / Fraction(rate, 16_000) - 1)) for rate, r in ratios.items()]
    assert len(errors) > 1000
    assert 0 < max(errors) < 1 / audio.LARGEST_FACTOR == 1e-5


@pytest.mark.parametrize(
    "rate", [*USUAL, 1_000, 1_001, 8_001, 11_127, 22_255, 99_999, 100_000, 176_400, 352_800, 768_000]
)
def test_up_to_100_khz_and_for_all_usual_rates_it_is_exact(rate: int) -> None:
    assert audio.ratio_of(rate) == Fraction(rate, 16_000)


@pytest.mark.parametrize("rate", [1, 50, 999, 768_001, 1_000_003, 2**31 - 1])
def test_what_no_recorder_makes_is_refused_by_its_header(tmp_path: Path, rate: int) -> None:
    path = tone(tmp_path / "a.wav", 1.0)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, 24, rate)
    path.write_bytes(raw)
    for call in (audio.duration, audio.load):
        message = refusal(call, Utterance("the-id", path))
        assert f"its header says {rate:,} Hz; expected a sample rate from 1,000 to 768,000 Hz" in message
    assert audio.fingerprint(Utterance("the-id", path)) is None
    assert audio.fingerprint(Utterance("the-id", path)) is None


def test_what_does_not_fit_into_memory_is_refused_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute in 100 channels needs 0.4 GB."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((16_000, 100)), 16_000)
    whole, part = Utterance("the-id", path), Utterance("the-id", path, end=0.1)
    assert audio.duration(whole) == 1.0
    monkeypatch.setattr(audio, "_memory", lambda: 2**20)
    for call in (audio.duration, audio.load):
        message = refusal(call, whole)
        assert "the-id: it is 1 s long, which does not fit into memory" in message
    assert len(audio.load(part)) == 1_600
