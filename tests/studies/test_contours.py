"""Attention against the voice: what openSMILE's contours are of when, correlations with a known answer, and chance."""

# mypy: disable-error-code="union-attr"

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from refusals import refusal

from bas.speech.acoustics import Contours, contours
from bas.studies.shares.contours import (
    DRAWS,
    ENERGY,
    ENERGY_GIVEN,
    F0,
    F0_GIVEN,
    LEAST,
    MEASURES,
    SHIFTS,
    TIME,
    Heard,
    correlate,
    examples,
)

RATE = 16_000
needs_opensmile = pytest.mark.skipif(find_spec("opensmile") is None, reason="opensmile is not installed")


def voice(seconds: float, hertz: float = 150.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.1 * sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 20))).astype(np.float32)


def utterance(weights_ST: np.ndarray, energy_T: np.ndarray, pitch_T: np.ndarray | None = None) -> Heard:
    seconds_T = 0.1 * np.arange(len(energy_T))
    return Heard(weights_ST, seconds_T, energy_T, np.full(len(energy_T), np.nan) if pitch_T is None else pitch_T, 0.0)


def smooth(rng: np.random.Generator, frames: int) -> np.ndarray:
    return np.convolve(rng.standard_normal(frames + 4), np.ones(5) / 5, "valid")


# --- the contours themselves ---


@needs_opensmile
def test_loudness_and_pitch_are_where_the_voice_is() -> None:
    wave = np.zeros(2 * RATE, np.float32)
    wave[round(0.8 * RATE) : round(1.3 * RATE)] = voice(0.5)
    measured = contours([("a", wave), ("b", np.zeros(RATE, np.float32))])
    edges_T = np.arange(0, 2, 0.1)
    loudness_T, pitch_T = measured.of("a", edges_T, edges_T + 0.1)
    assert np.flatnonzero(loudness_T > loudness_T[10] / 2).tolist() == [8, 9, 10, 11, 12]
    voiced_T = np.isfinite(pitch_T)
    assert voiced_T[8:13].all()
    assert not voiced_T[:7].any()
    assert not voiced_T[14:].any()
    assert pitch_T[9:12] == pytest.approx(12 * np.log2(150 / 27.5), abs=0.2)
    loudness_T, pitch_T = measured.of("b", edges_T[:5], edges_T[:5] + 0.1)
    assert np.isfinite(loudness_T).all()
    assert not np.isfinite(pitch_T).any()


@needs_opensmile
def test_too_short_for_opensmile_is_not_known() -> None:
    measured = contours([("a", voice(0.03)), ("b", voice(0.5))])
    assert not np.isfinite(np.concatenate(measured.of("a", np.zeros(1), np.ones(1)))).any()
    assert np.isfinite(np.concatenate(measured.of("b", np.zeros(1), np.ones(1)))).all()


def test_a_stretch_is_the_mean_of_the_frames_whose_centre_it_holds() -> None:
    # Loudness frames are centred at 10, 20, ... ms, pitch frames at 30, 40, ...
    loudness_N, pitch_N = np.array([9.0, 9, 1, 2, 3, 4, np.nan]), np.array([9.0] * 4 + [np.nan, 7, 8])
    measured = Contours(("x", "a"), np.array([0.1, 0.1]), np.array([2, 5]), loudness_N, pitch_N, "2.6.0")
    starts_T, stops_T = np.array([0.0, 0.02, 0.04, 0.06]), np.array([0.02, 0.04, 0.06, 0.08])
    loudness_T, pitch_T = measured.of("a", starts_T, stops_T)
    assert loudness_T[:3].tolist() == [1, 2.5, 4]
    assert np.isnan(loudness_T[3])
    assert pitch_T[1:].tolist() == [9, 9, 7.5]
    assert np.isnan(pitch_T[0])


def test_contours_come_back_from_a_file(tmp_path: Path) -> None:
    measured = Contours(
        ("é/1", "b"),
        np.array([0.1, 0.2]),
        np.array([2, 1]),
        np.array([1.0, np.nan, 3]),
        np.array([np.nan, 5, 6]),
        "2.6.0",
    )
    measured.save(tmp_path / "contours.npz")
    again = Contours.load(tmp_path / "contours.npz")
    assert (again.ids, again.opensmile) == (measured.ids, "2.6.0")
    for name in ("seconds_U", "frames_U", "loudness_N", "pitch_N"):
        assert np.array_equal(getattr(again, name), getattr(measured, name), equal_nan=True)
    (tmp_path / "contours.npz").write_bytes(b"PK\x03\x04")
    assert "contours.npz: damaged; delete it" in refusal(Contours.load, tmp_path / "contours.npz")


# --- correlations ---


@pytest.mark.parametrize("frames", [20, SHIFTS + 20])
def test_weights_that_are_loudness_correlate_with_it_and_not_with_time(frames: int) -> None:
    rng = np.random.default_rng(0)
    energies = [rng.permutation(frames).astype(float) for _ in range(30)]
    units = np.repeat(np.arange(6), 5)
    attention = correlate([utterance(np.stack([e, 2 * e]), e, -e) for e in energies], units // 2, units)
    measures = attention.measures
    assert measures[ENERGY].mean == pytest.approx(1)
    assert measures[F0].mean == pytest.approx(-1)
    assert measures[ENERGY].p == measures[F0].p == 1 / (1 + DRAWS)
    assert measures[ENERGY].shown
    assert not measures[TIME].shown
    assert measures[TIME].p > 0.05
    assert measures[TIME].low < 0 < measures[TIME].high
    assert attention.agreement == pytest.approx(1)


def test_what_follows_from_time_alone_is_gone_once_time_is_given() -> None:
    """Weights rise and loudness falls, each with noise of its own."""
    rng, frames = np.random.default_rng(1), 40
    time = np.arange(frames)
    made = [
        utterance(time[None] + 12 * rng.standard_normal((1, frames)), -time + 12 * rng.standard_normal(frames))
        for _ in range(60)
    ]
    folds = np.repeat(np.arange(5), 12)
    measures = correlate(made, folds, np.repeat(np.arange(10), 6)).measures
    assert measures[ENERGY].mean < -0.3
    assert abs(measures[ENERGY_GIVEN].mean) < 0.1
    assert measures[TIME].mean > 0.5
    assert measures[TIME].shown
    few = correlate(made, folds % 3, folds % 3).measures[TIME]
    assert few.low > 0
    assert not few.shown  # three units claim nothing


def test_what_one_seed_attends_to_is_not_shown() -> None:
    """All speakers alike: these alone, without the noise of training, would show it."""
    rng = np.random.default_rng(4)
    made = []
    for _ in range(40):
        energy = rng.permutation(20).astype(float)
        made.append(utterance(np.stack([energy, np.ones(20), np.ones(20)]), energy))
    folds, units = np.repeat(np.arange(2), 20), np.repeat(np.arange(8), 5)
    energy_ = correlate(made, folds, units).measures[ENERGY]
    assert energy_.mean == pytest.approx(1 / 3)
    assert energy_.p < 0.01
    assert energy_.low < 0
    assert not energy_.shown
    every = [utterance(np.stack([one.energy_T] * 3), one.energy_T) for one in made]
    assert correlate(every, folds, units).measures[ENERGY].shown


def test_partial_correlation_is_that_of_the_residuals() -> None:
    rng, frames = np.random.default_rng(2), 30
    ranks = np.stack([rng.permutation(frames) for _ in range(2)]).astype(float)
    one = utterance(ranks[:1], ranks[1])
    time = np.arange(frames) - (frames - 1) / 2
    rest = [r - r.mean() - time * (r @ time) / (time @ time) for r in ranks]
    expected = rest[0] @ rest[1] / np.sqrt((rest[0] @ rest[0]) * (rest[1] @ rest[1]))
    assert one.correlations(np.zeros(1, int))[ENERGY_GIVEN] == pytest.approx(expected)


def test_chance_is_rarely_significant_though_both_are_smooth() -> None:
    """Two smooth curves that know nothing of each other: p is uniform, or nearly."""
    rng = np.random.default_rng(3)
    low = 0
    for seed in range(40):
        made = [utterance(np.exp(smooth(rng, 25))[None], smooth(rng, 25)) for _ in range(12)]
        units = np.repeat(np.arange(4), 3)
        low += correlate(made, units, units, seed).measures[ENERGY].p <= 0.1
    assert low <= 9  # 4 are expected; more than 9 of 40 have a probability of 0.5 %


def test_pitch_counts_voiced_frames_alone_and_needs_enough_of_them() -> None:
    weights, pitch = np.arange(10.0)[None], np.full(10, np.nan)
    pitch[[1, 3, 5, 7]] = [4, 3, 2, 1]
    assert F0 not in utterance(weights, np.ones(10), pitch).correlations(np.zeros(1, int))
    pitch[9] = 0
    assert LEAST == 5
    one = utterance(weights, np.ones(10), pitch)
    assert one.correlations(np.zeros(1, int))[F0] == pytest.approx([-1])
    measures = correlate([one, utterance(weights, np.ones(10))], np.zeros(2), np.array(["a", "b"])).measures
    assert measures[F0].utterances == 1
    assert measures[ENERGY].utterances == 2
    assert measures[ENERGY].mean == 0  # loudness never changes
    assert measures[F0_GIVEN].mean == 0  # nothing is left once the time is given


def test_nothing_long_enough_is_told_as_nothing() -> None:
    attention = correlate([utterance(np.ones((1, 3)) / 3, np.ones(3))] * 2, np.zeros(2), np.array(["a", "b"]))
    assert attention.measures == dict.fromkeys(MEASURES)
    assert attention.agreement is None
    assert attention.spread == pytest.approx(1)
    assert examples(("a", "b"), [utterance(np.ones((1, 3)), np.ones(3))] * 2) == ()


def test_spread_and_agreement() -> None:
    peaked, flat = np.eye(8)[:1], np.full((1, 8), 1 / 8)
    energy = np.arange(8.0)
    for weights, spread in ((peaked, 1 / 8), (flat, 1.0), (np.concatenate([peaked, flat]), 9 / 16)):
        assert correlate([utterance(weights, energy)], np.zeros(1), np.array(["a"])).spread == pytest.approx(spread)
    rise = np.arange(1.0, 9)
    seeds = np.stack([rise, rise, rise[::-1]])
    assert correlate([utterance(seeds, energy)], np.zeros(1), np.array(["a"])).agreement == pytest.approx(-1 / 3)


def test_examples_are_the_lowest_the_middle_and_the_highest() -> None:
    rise = np.arange(10.0)
    swapped = rise[[1, 0, 3, 2, 5, 4, 7, 6, 9, 8]]
    made = [utterance(w[None], rise) for w in (swapped, rise[::-1], rise)]
    chosen = examples(("middle", "low", "high"), made)
    assert [one.id for one in chosen] == ["low", "middle", "high"]
    assert [one.rho for one in chosen] == sorted(one.rho for one in chosen)
    assert chosen[0].weights.tolist() == [rise[::-1].tolist()]
