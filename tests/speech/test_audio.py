"""Whatever is on disk comes in as 16 kHz mono float32, or is refused in one line that names the file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from refusals import refusal
from sounds import tone

from bas.corpora import Utterance
from bas.speech import audio


def utterance(path: Path, start: float = 0.0, end: float | None = None) -> Utterance:
    return Utterance("the-id", path, start=start, end=end)


def sine(samples: int, hertz: float = 220.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / 16_000)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_any_rate_and_depth_becomes_16_khz_float32(tmp_path: Path, rate: int, subtype: str) -> None:
    path = tone(tmp_path / "a.wav", 0.377, rate, subtype=subtype)
    wave = audio.load(utterance(path))
    samples = round(0.377 * rate)
    assert wave.dtype == np.float32
    assert wave.shape == (math.ceil(samples * 16_000 / rate),)
    middle = slice(500, -500)  # the resampler's window runs over both ends
    assert np.abs(wave - sine(len(wave)))[middle].max() < 5e-3
    assert audio.duration(utterance(path)) == pytest.approx(samples / rate)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "aiff"])
def test_other_formats_are_read_too(tmp_path: Path, suffix: str) -> None:
    path = tone(tmp_path / f"a.{suffix}", 1.0)
    wave = audio.load(utterance(path))
    assert len(wave) == round(audio.duration(utterance(path)) * 16_000)
    assert len(wave) == pytest.approx(16_000, abs=1_200)  # mp3 pads
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(0.5 / math.sqrt(2), rel=0.1)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_channels_are_averaged(tmp_path: Path, rate: int) -> None:
    left = 0.5 * np.sin(2 * np.pi * 220 * np.arange(rate) / rate)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, np.zeros_like(left)], axis=1), rate)
    wave = audio.load(utterance(tmp_path / "stereo.wav"))
    assert wave.shape == (16_000,)
    assert np.abs(wave - sine(16_000) / 2)[500:-500].max() < 5e-3


def test_a_segment_is_that_part_of_the_file(tmp_path: Path) -> None:
    path = tone(tmp_path / "a.wav", 1.0)
    whole = audio.load(utterance(path))
    for start, end, samples in [(0.25, 0.75, slice(4_000, 12_000)), (0.5, None, slice(8_000, None))]:
        part = utterance(path, start, end)
        assert np.array_equal(audio.load(part), whole[samples])
        assert audio.duration(part) == 0.5


def test_an_end_rounded_up_a_little_is_the_end_of_the_file(tmp_path: Path) -> None:
    part = utterance(tone(tmp_path / "a.wav", 1.0), 0.5, 1.04)
    assert len(audio.load(part)) == 8_000
    assert audio.duration(part) == 0.5


def test_a_segment_at_another_rate_has_the_length_its_duration_says(tmp_path: Path) -> None:
    part = utterance(tone(tmp_path / "a.wav", 1.0, 44_100), 0.1, 0.6)
    assert len(audio.load(part)) == 8_000
    assert audio.duration(part) == 0.5


def unreadable(folder: Path, what: str) -> Utterance:
    path = folder / f"{what}.wav"
    match what:
        case "missing":
            pass
        case "zero bytes":
            path.write_bytes(b"")
        case "folder":
            path.mkdir()
        case "text":
            path.write_text("no audio\nat all\n" * 100)
        case "headerless":
            path = folder / "x.raw"
            path.write_bytes(bytes(1_000))
        case "no samples":
            tone(path, 0.0)
        case "beyond the end":
            return utterance(tone(path, 1.0), 0.5, 1.2)
        case "starts after the end":
            return utterance(tone(path, 1.0), 1.5)
        case "backwards":
            return utterance(tone(path, 1.0), 0.5, 0.2)
        case "negative":
            return utterance(tone(path, 1.0), -0.5)
    return utterance(path)


@pytest.mark.parametrize(
    "what",
    [
        "missing",
        "zero bytes",
        "folder",
        "text",
        "headerless",
        "no samples",
        "beyond the end",
        "starts after the end",
        "backwards",
        "negative",
    ],
)
def test_what_the_header_tells_is_refused_by_both(tmp_path: Path, what: str) -> None:
    bad = unreadable(tmp_path, what)
    assert str(bad.audio) in refusal(audio.load, bad)
    assert str(bad.audio) in refusal(audio.duration, bad)


def test_a_segment_beyond_the_end_is_told_with_both_times(tmp_path: Path) -> None:
    message = refusal(audio.load, utterance(tone(tmp_path / "a.wav", 1.0), 0.5, 1.2))
    assert "the-id ends at 1.2 s but the file has 1.00 s" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    wave = sine(8_000)
    wave[4_000] = value
    path = tmp_path / "a.wav"
    soundfile.write(path, wave, 16_000, subtype="FLOAT")
    message = refusal(audio.load, utterance(path))
    assert str(path) in message
    assert "NaN" in message


def test_a_file_cut_off_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 32_000), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert str(path) in refusal(audio.load, utterance(path))


def test_a_header_that_lies_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 16_000), 16_000)
    raw = bytearray(path.read_bytes())
    raw[21] |= 0x0F  # the upper four of the 36 bits that count the samples
    raw[22:26] = b"\xff" * 4
    path.write_bytes(raw)
    assert soundfile.info(path).frames == 2**36 - 1
    for call in (audio.duration, audio.load):
        message = refusal(call, utterance(path))
        assert str(path) in message
        assert "its header says 4,294,967 s" in message


@pytest.mark.parametrize(("at", "value"), [(24, 0), (24, 2**32 - 1), (22, 0)])
def test_what_libsndfile_says_comes_with_what_to_do(tmp_path: Path, at: int, value: int) -> None:
    path = tone(tmp_path / "a.wav", 1.0)
    raw = bytearray(path.read_bytes())
    raw[at : at + (2 if at == 22 else 4)] = value.to_bytes(2 if at == 22 else 4, "little")
    path.write_bytes(raw)
    message = refusal(audio.load, utterance(path))
    assert message.startswith(f"{path}: cannot be read as audio (")
    assert message.endswith("); get the recording anew, or convert it to WAV or FLAC")
    assert "Internal error" not in message
    assert message.count(str(path)) == 1


def test_so_it_does_where_the_sound_is_there_twice(tmp_path: Path) -> None:
    path = tone(tmp_path / "a.wav", 1.0)
    with path.open("ab") as stream:
        stream.write(b"data" + path.read_bytes()[40:])
    message = refusal(audio.load, utterance(path))
    assert message.startswith(f"{path}: ")
    assert "cannot be read as audio (" in message
