"""A recording's length: what its header promises, and what is there."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import LENGTH, NOISE, PACKED, PLAIN, RATE, cut, part, write
from refusals import refusal

from bas.speech import audio
from bas.speech.container import sound_of

# --- cut off ---


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("suffix", PLAIN)
def test_a_recording_cut_off_is_refused_with_both_lengths(tmp_path: Path, suffix: str, share: float) -> None:
    path = cut(write(tmp_path / f"a.{suffix}"), share)
    for call in (audio.duration, audio.load):
        message = refusal(call, part(path))
        assert str(path) in message
        assert "the-id breaks off after " in message
        there, promised = (float(word) for word in message.split("after ")[1].split(" s:")[0].split(" of "))
        assert promised == pytest.approx(2.0, abs=0.15)  # ADPCM comes in blocks of 0.06 s
        assert there == pytest.approx(2 * share, abs=0.2)
        assert "--accept-truncated" in message
    assert audio.fingerprint(part(path)) is None


@pytest.mark.parametrize("suffix", PACKED)
def test_so_are_those_that_only_decoding_shows(tmp_path: Path, suffix: str) -> None:
    message = refusal(audio.load, part(cut(write(tmp_path / f"a.{suffix}", np.tile(NOISE, 8)), 0.6)))
    assert "breaks off after " in message
    assert "--accept-truncated" in message


@pytest.mark.parametrize("suffix", [*PLAIN, *PACKED])
def test_who_means_it_gets_what_is_there(tmp_path: Path, suffix: str) -> None:
    whole = audio.load(part(write(tmp_path / f"a.{suffix}", np.tile(NOISE, 8), 48_000 if suffix == "opus" else RATE)))
    path = cut(tmp_path / f"a.{suffix}", 0.6)
    utterance = part(path, truncated=True)
    wave = audio.load(utterance)
    assert 0.4 * len(whole) < len(wave) < 0.7 * len(whole)
    assert len(wave) == pytest.approx(RATE * audio.duration(utterance), abs=1)
    assert np.abs(wave - whole[: len(wave)])[:-2000].max() < 1e-6
    assert audio.is_cut(utterance)
    assert not audio.is_cut(part(path))
    assert not audio.is_cut(part(write(path), truncated=True))


@pytest.mark.parametrize("suffix", PLAIN)
def test_parts_before_the_cut_are_read_and_later_ones_are_not(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}")
    before = audio.load(part(path, start=0.25, end=0.75))
    cut(path, 0.6)
    assert np.array_equal(audio.load(part(path, start=0.25, end=0.75)), before)
    assert "breaks off" in refusal(audio.load, part(path, start=0.5, end=1.9))
    assert "ends at 2.5 s" in refusal(audio.load, part(path, start=0.5, end=2.5))


@pytest.mark.parametrize("suffix", [*PLAIN, *PACKED])
def test_whole_recordings_are_read_whole(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", rate=48_000 if suffix == "opus" else RATE)
    expected, rate = soundfile.read(path, dtype="float32")
    assert np.array_equal(audio.load(part(path)), audio.resample(expected, rate))
    with path.open("ab") as stream:  # a chunk of text behind the sound is none of it
        stream.write(b"LIST\x04\x00\x00\x00INFO")
    if suffix in PLAIN and suffix != "nist":
        assert audio.duration(part(path)) == pytest.approx(len(expected) / rate, abs=1e-3)


# --- headers of a pipe ---

FIELDS: dict[str, tuple[bytes, int, str]] = {
    "wav": (b"data", 4, "<I"),
    "rifx.wav": (b"data", 4, ">I"),
    "extensible.wav": (b"data", 4, "<I"),
    "rf64": (b"ds64", 16, "<Q"),
    "w64": (b"data", 16, "<Q"),
    "aiff": (b"SSND", 4, ">I"),
    "au": (b".snd", 8, ">I"),
    "caf": (b"data", 4, ">Q"),
}
"""By format where the length is said: after this name, so many bytes later."""
UNKNOWN = (0, 2**31 - 1, 0x7FFFF000, 0x80000000, 0x7F000000, 2**32 - 1, 2**32 - 1 - 36)


@pytest.mark.parametrize("value", [*UNKNOWN, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("suffix", FIELDS)
def test_a_header_that_leaves_the_length_open_is_read_to_the_end(tmp_path: Path, suffix: str, value: int) -> None:
    name, later, form = FIELDS[suffix]
    if value >= 2**32 and form[-1] == "I":
        return
    path = write(tmp_path / f"a.{suffix}")
    expected = audio.load(part(path))
    raw = bytearray(path.read_bytes())
    struct.pack_into(form, raw, raw.index(name) + later, value)
    path.write_bytes(raw)
    os.utime(path, (1, 1))  # the header is read again
    sound = sound_of(path)
    assert sound is not None
    assert sound.promised is None
    wave = audio.load(part(path))
    assert np.array_equal(wave[: len(expected)], expected)
    assert len(wave) <= len(expected) + 16
    assert audio.duration(part(path)) == pytest.approx(2.0, abs=1e-3)


def test_bytes_that_are_no_header_say_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    heads = [
        b"RIFF\0\0\0\0WAVE",
        b"RF64\0\0\0\0WAVE",
        b"FORM\0\0\0\0AIFF",
        b"riff",
        b"caff",
        b"NIST_1A\n",
        b"NIST",
        b".snd",
    ]
    for n, head in enumerate([*heads, b"", b"RIFF"]):
        for tail in (b"", b"\xff" * 300, b"\0" * 70_000, rng.bytes(1000)):
            path = tmp_path / f"{n}.wav"
            path.write_bytes(head + tail)
            sound_of(path)
            assert str(path) in refusal(audio.duration, part(path))


# --- what lies behind the sound ---

HEADS = {
    ">4sI": b"ANNO",
    "<4sI": b"LIST",
    ">4sQ": b"info",
    "<16sQ": b"list" + bytes.fromhex("f3acd3118cd100c04f8edb8a"),
}
CHUNKS = {"rifx.wav": ">4sI", "w64": "<16sQ", "aiff": ">4sI", "aifc": ">4sI", "svx": ">4sI", "caf": ">4sQ"}
"""By format the head of a chunk; of the others, "<4sI"."""
CHUNKED = [suffix for suffix in PLAIN if suffix not in ("au", "nist", "sph")]
TEXT = b"INFOISFT" + b"made by a program " * 220  # longer than 0.05 s in all


def chunk(suffix: str) -> bytes:
    form = CHUNKS.get(suffix, "<4sI")
    return struct.pack(form, HEADS[form], len(TEXT) + (24 if suffix == "w64" else 0)) + TEXT


def says(path: Path, length: int) -> Path:
    """With a header that says another length of the sound, in bytes."""
    sound = sound_of(path)
    assert sound is not None
    raw = bytearray(path.read_bytes())
    if path.suffix in (".nist", ".sph"):
        width = 1 if path.suffix == ".sph" else 2
        raw = raw.replace(f"sample_count -i {LENGTH}".encode(), f"sample_count -i {length // width:05}".encode())
    else:
        struct.pack_into(sound.form, raw, sound.at, length + sound.more)
    path.write_bytes(raw)
    os.utime(path, (1, 1))
    return path


@pytest.mark.parametrize("suffix", PLAIN)
def test_sound_that_the_header_leaves_out_is_not_lost_unseen(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}")
    whole, sound = audio.load(part(path)), sound_of(path)
    assert sound is not None
    says(path, sound.there // 4 // 512 * 512)  # ADPCM comes in blocks
    for call in (audio.duration, audio.load):
        message = refusal(call, part(path))
        assert float(message.split("the-id: its header says ")[1].split(" s,")[0]) == pytest.approx(0.5, abs=0.03)
        assert "s, but 2.0" in message
        assert "--accept-truncated" in message
    assert "but 2.0" in refusal(audio.load, part(path, start=0.25, end=1.5))
    assert np.array_equal(audio.load(part(path, start=0.1, end=0.4)), whole[1600:6400])
    taken = part(path, truncated=True)
    assert len(audio.load(taken)) == pytest.approx(8_000, abs=600)
    assert len(audio.load(taken)) == pytest.approx(RATE * audio.duration(taken), abs=1)
    assert audio.is_cut(taken)


BEHIND = {
    "zeros": bytes(20_000),
    "an ID3v1 tag": b"TAG".ljust(128, b"x"),
    "an ID3v2 tag": b"ID3\x04\0\0\0\0\x40\0" + NOISE.tobytes()[:8192],
    "zeros and a tag": bytes(100) + b"TAG".ljust(128, b"x"),
    "a chunk of text that is cut off": b"LIST\xff\xff\0\0INFO" + TEXT,
}


@pytest.mark.parametrize("suffix", PLAIN)
@pytest.mark.parametrize("name", [*BEHIND, "a chunk", "a chunk and a tag", "two chunks"])
def test_what_is_no_sound_is_left_out(tmp_path: Path, suffix: str, name: str) -> None:
    if name not in BEHIND and suffix not in CHUNKED:
        return
    path = write(tmp_path / f"a.{suffix}")
    whole = audio.load(part(path))
    chunks = {"a chunk": chunk(suffix), "two chunks": 2 * chunk(suffix)}
    chunks["a chunk and a tag"] = chunk(suffix) + BEHIND["an ID3v1 tag"]
    with path.open("ab") as stream:
        stream.write({**BEHIND, **chunks}[name])
    os.utime(path, (1, 1))
    assert np.array_equal(audio.load(part(path)), whole)
    assert audio.duration(part(path)) == len(whole) / RATE


@pytest.mark.parametrize("suffix", CHUNKED)
@pytest.mark.parametrize("value", [0, 2**32 - 1])
@pytest.mark.parametrize("times", [1, 2])
def test_an_empty_recording_with_text_behind_it_holds_no_samples(
    tmp_path: Path, suffix: str, value: int, times: int
) -> None:
    path = write(tmp_path / f"a.{suffix}")
    sound = sound_of(path)
    assert sound is not None
    path.write_bytes(path.read_bytes()[: sound.begin])
    with path.open("ab") as stream:
        stream.write(chunk(suffix) * times)
    raw = bytearray(path.read_bytes())
    struct.pack_into(sound.form, raw, sound.at, value + (sound.more if value == 0 else 0))
    path.write_bytes(raw)
    os.utime(path, (1, 1))
    for call in (audio.duration, audio.load):
        message = refusal(call, part(path))
        assert "the-id holds no samples" in message or "cannot be read as audio (" in message


def test_a_second_recording_behind_the_first_is_no_text(tmp_path: Path) -> None:
    for suffix in ("aiff", "au", "caf", "rf64"):
        path = write(tmp_path / f"a.{suffix}")
        path.write_bytes(2 * path.read_bytes())
        os.utime(path, (1, 1))
        assert str(path) in refusal(audio.duration, part(path))
