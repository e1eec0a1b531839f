"""eGeMAPS by openSMILE: the families, what has no value, full scale; and the three features written here."""

# mypy: disable-error-code="list-item"

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from refusals import refusal

from bas.speech import acoustics
from bas.speech.acoustics import (
    BESIDE,
    FAMILIES,
    OTHER,
    Acoustic,
    Functionals,
    family_of,
    fill_missing,
    functionals,
    measure,
    opensmile_version,
)

RATE = 16_000
needs_opensmile = pytest.mark.skipif(find_spec("opensmile") is None, reason="opensmile is not installed")


def voice(seconds: float = 1.0, hertz: float = 120.0, amplitude: float = 0.3) -> np.ndarray:
    """A buzz with a formant-like tilt."""
    time = np.arange(round(seconds * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 25))
    return (amplitude * wave / np.abs(wave).max()).astype(np.float32)


def noise(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def value(acoustic: Acoustic, id_: str, name: str) -> float:
    return float(acoustic.values_UF[acoustic.ids.index(id_), acoustic.names.index(name)])


def by_hand(values: list[list[float]]) -> Acoustic:
    array = np.array(values)
    names = tuple(f"f{i}" for i in range(array.shape[1]))
    families = ("energy", "frequency", OTHER)[: array.shape[1]]
    return Acoustic(tuple("abcdef"[: len(array)]), names, families, array, np.arange(len(array)))


@needs_opensmile
def test_each_of_the_88_is_in_one_family_and_they_are_as_many_as_the_paper_has() -> None:
    acoustic = measure([("a", voice())])
    assert len(acoustic.names) == 88 + len(BESIDE)
    assert acoustic.names[88:] == BESIDE
    assert acoustic.families == tuple(map(family_of, acoustic.names[:88])) + (OTHER,) * 3
    # Eyben et al. 2016, section 3: functionals of pitch (10), jitter (2), three formants and their bandwidths (12);
    # of loudness (10), shimmer and HNR (4) and the equivalent sound level; the six temporal features.
    assert Counter(acoustic.families[:88]) == {"frequency": 24, "energy": 15, "spectral": 43, "temporal": 6}
    assert acoustic.family(*FAMILIES).shape == (1, 88)
    for name, family in {
        "F2bandwidth_sma3nz_amean": "frequency",
        "F2amplitudeLogRelF0_sma3nz_amean": "spectral",
        "loudness_sma3_amean": "energy",
        "loudnessPeaksPerSec": "temporal",
        "equivalentSoundLevel_dBp": "energy",
        "slopeUV0-500_sma3nz_amean": "spectral",
        "MeanUnvoicedSegmentLength": "temporal",
    }.items():
        assert acoustic.families[acoustic.names.index(name)] == family


@needs_opensmile
def test_pitch_and_duration_are_those_of_the_sound() -> None:
    done: list[int] = []
    waves = [("low", voice(1.0, 110.0)), ("high", voice(2.0, 220.0))]
    acoustic = measure(iter(waves), lambda: done.append(1))
    assert len(done) == 2
    for id_, hertz, seconds in (("low", 110.0, 1.0), ("high", 220.0, 2.0)):
        semitones = 12 * np.log2(hertz / 27.5)
        assert value(acoustic, id_, "F0semitoneFrom27.5Hz_sma3nz_percentile50.0") == pytest.approx(semitones, abs=0.1)
        assert value(acoustic, id_, "duration") == seconds
    assert value(acoustic, "low", "zero-crossing rate") == pytest.approx(220, abs=2)


@needs_opensmile
def test_what_has_no_frame_has_no_value_and_is_told() -> None:
    acoustic = measure(
        [("noise", noise()), ("buzz", voice()), ("blip", noise(0.01)), ("silence", np.zeros(RATE, "f4"))]
    )
    pitch, tilt = "F0semitoneFrom27.5Hz_sma3nz_amean", "alphaRatioUV_sma3nz_amean"
    assert np.isnan(value(acoustic, "noise", pitch))
    assert np.isfinite(value(acoustic, "buzz", pitch))
    assert np.isfinite(value(acoustic, "noise", tilt))
    assert np.isnan(value(acoustic, "blip", "loudness_sma3_amean"))
    assert value(acoustic, "noise", "MeanVoicedSegmentLengthSec") == 0  # a length of nothing is 0, its pitch is not
    assert np.isnan(value(acoustic, "silence", "spectral entropy"))
    assert acoustic.missing[pitch] == 3
    assert acoustic.missing["loudness_sma3_amean"] == 1
    assert "duration" not in acoustic.missing
    assert np.isfinite(fill_missing(acoustic.family(*FAMILIES))).all()


@needs_opensmile
def test_what_is_beyond_full_scale_is_clipped_and_counted_and_does_not_wrap_around() -> None:
    loud = voice(amplitude=1.5)
    acoustic = measure([("loud", loud), ("clipped", np.clip(loud, -1, 1)), ("half", loud / 3)])
    assert acoustic.clipped_U.tolist() == [np.count_nonzero(np.abs(loud) > 1), 0, 0]
    assert np.array_equal(acoustic.values_UF[0, :88], acoustic.values_UF[1, :88], equal_nan=True)
    level = "equivalentSoundLevel_dBp"
    assert 6 < value(acoustic, "loud", level) - value(acoustic, "half", level) < 9.6


@needs_opensmile
def test_functionals_of_compare_2016_and_what_is_too_short_or_too_loud_for_them(tmp_path: Path) -> None:
    loud, seen = voice(amplitude=1.5), list[int]()
    waves = [("loud", loud), ("clipped", np.clip(loud, -1, 1)), ("half", loud / 3), ("blip", noise(0.01))]
    measured = functionals(waves, lambda: seen.append(1))
    assert measured.values_UF.shape == (4, 6373)
    assert measured.values_UF.dtype == np.float32
    assert len(seen) == 4
    assert np.isnan(measured.values_UF).sum(1).tolist() == [0, 0, 0, 6373]
    assert np.array_equal(measured.values_UF[0], measured.values_UF[1])
    assert not np.array_equal(measured.values_UF[0], measured.values_UF[2])
    path = tmp_path / "functionals.npz"
    measured.save(path)
    again = Functionals.load(path)
    assert (again.ids, again.opensmile) == (measured.ids, opensmile_version())
    assert np.array_equal(again.of(["blip", "half"]), measured.values_UF[[3, 2]].astype(float), equal_nan=True)
    path.write_bytes(path.read_bytes()[:-40])
    assert refusal(Functionals.load, path) == f"{path}: damaged; delete it: the functionals are measured again"


@needs_opensmile
def test_entropy_is_high_for_noise_and_low_for_a_tone() -> None:
    tone = np.sin(2 * np.pi * 1_000 * np.arange(RATE) / RATE).astype(np.float32)
    paused = np.concatenate([noise(), np.zeros(RATE, np.float32)])
    acoustic = measure([("noise", noise(3.0)), ("tone", tone), ("paused", paused)])
    # Of a flat spectrum with exponentially distributed power: log2 K - (1 - gamma) / ln 2, of log2 K bits.
    expected = 1 - (1 - np.euler_gamma) / np.log(2) / np.log2(201)
    assert value(acoustic, "noise", "spectral entropy") == pytest.approx(expected, abs=0.01)
    assert value(acoustic, "tone", "spectral entropy") < 0.2
    assert value(acoustic, "paused", "spectral entropy") == pytest.approx(expected, abs=0.02)
    assert value(acoustic, "noise", "zero-crossing rate") == pytest.approx(RATE / 2, rel=0.02)
    assert value(acoustic, "tone", "zero-crossing rate") == pytest.approx(2_000, abs=3)


def test_a_hole_is_filled_with_the_mean_of_its_column() -> None:
    acoustic = by_hand([[1, np.nan, 5], [3, np.nan, np.nan], [np.nan, np.nan, 7]])
    assert fill_missing(acoustic.family("energy", "frequency")).tolist() == [[1, 0], [3, 0], [2, 0]]
    assert fill_missing(acoustic.family(OTHER)).tolist() == [[5], [6], [7]]
    assert acoustic.missing == {"f0": 1, "f1": 3, "f2": 1}


def test_of_picks_utterances_by_id_in_the_order_asked_for() -> None:
    acoustic = by_hand([[1, 10], [2, 20], [3, 30]])
    picked = acoustic.of(["c", "a"])
    assert picked.ids == ("c", "a")
    assert picked.values_UF.tolist() == [[3, 30], [1, 10]]
    assert picked.clipped_U.tolist() == [2, 0]
    with pytest.raises(KeyError):
        acoustic.of(["nobody"])


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    acoustic = by_hand([[1, np.nan, 5], [3, 4, 6]])
    acoustic.save(tmp_path / "acoustic.npz")
    again = Acoustic.load(tmp_path / "acoustic.npz")
    assert (again.ids, again.names, again.families) == (acoustic.ids, acoustic.names, acoustic.families)
    assert np.array_equal(again.values_UF, acoustic.values_UF, equal_nan=True)
    assert np.array_equal(again.clipped_U, acoustic.clipped_U)
    assert [path.name for path in tmp_path.iterdir()] == ["acoustic.npz"]


@pytest.mark.parametrize("damage", ["cut", "text", "other"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "acoustic.npz"
    by_hand([[1, 2]]).save(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "text":
        path.write_text("no archive")
    else:
        np.savez(path, ids=np.array(["a"]))
    message = refusal(Acoustic.load, path)
    assert str(path) in message
    assert "damaged" in message
    assert "missing; put it back" in refusal(Acoustic.load, tmp_path / "other.npz")


def test_without_opensmile_a_line_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opensmile", None)
    assert "not installed here: pip install 'bas[dynamics]'" in refusal(measure, [("a", voice())])
    assert "not installed here: pip install 'bas[dynamics]'" in refusal(opensmile_version)


def test_an_interrupt_waits_for_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a callback of openSMILE it would be lost, and the utterance's features would be NaN."""
    measured: list[str] = []

    class Smile:
        feature_names = ("loudness_sma3_amean", "F0semitoneFrom27.5Hz_sma3nz_amean")

        def __init__(self, *_: Any) -> None: ...

        def process_signal(self, wave: Any, rate: int) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):  # time for the interpreter to hear it
                pass
            measured.append("whole")
            return pd.DataFrame(np.ones((1, len(self.feature_names))))

    kinds = SimpleNamespace(eGeMAPSv02="", Functionals="")
    module = SimpleNamespace(Smile=Smile, FeatureSet=kinds, FeatureLevel=kinds)
    monkeypatch.setattr(acoustics, "_opensmile", lambda: module)
    waves = [(name, np.ones(1600, np.float32)) for name in "ab"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            measure(waves)
        assert measured == ["whole"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        measure(waves)
        assert len(measured) == 3, "whoever asked for no interrupts gets none"
    finally:
        signal.signal(signal.SIGINT, before)
