"""A recording's length: what its header promises, what is there, and what is decoded to the end."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from refusals import refusal

from bas.corpora import Utterance
from bas.errors import UserError
from bas.speech import audio
from bas.speech.container import sound_of

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
    assert audio.size(part(path)) is None


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


# --- formats ---

UNJUDGED = {
    "voc": ("VOC", "PCM_16"),
    "avr": ("AVR", "PCM_16"),
    "mat4": ("MAT4", "PCM_16"),
    "mat5": ("MAT5", "FLOAT"),
    "mpc2k": ("MPC2K", "PCM_16"),
    "paf": ("PAF", "PCM_16"),
    "pvf": ("PVF", "PCM_16"),
    "ircam": ("IRCAM", "PCM_16"),
    "wve": ("WVE", "ALAW"),
    "xi": ("XI", "DPCM_16"),
    "dwvw.aiff": ("AIFF", "DWVW_16"),
}


@pytest.mark.parametrize("suffix", UNJUDGED)
@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("truncated", [False, True])
def test_a_format_whose_length_cannot_be_told_is_refused(
    tmp_path: Path, suffix: str, share: float, truncated: bool
) -> None:
    form, subtype = UNJUDGED[suffix]
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, NOISE, 8_000 if suffix == "wve" else RATE, format=form, subtype=subtype)
    cut(path, share)
    for call in (audio.duration, audio.load):
        message = refusal(call, part(path, truncated=truncated))
        assert f"{path}: {form}" in message
        assert "how long it should be cannot be told; convert it to WAV or FLAC" in message


def test_so_is_a_header_that_cannot_be_followed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    path.write_bytes(b"ID3\x03\0\0\0\0\0\x0a" + bytes(10) + path.read_bytes())  # libsndfile skips the tag
    os.utime(path, (1, 1))
    assert "cannot be told" in refusal(audio.load, part(path))


def test_every_format_that_can_be_written_is_read_whole_or_refused(tmp_path: Path) -> None:
    """And cut off it is refused, or decoded as far as is said."""
    read = set()
    for form in soundfile.available_formats():
        for subtype in soundfile.available_subtypes(form):
            path = tmp_path / f"{form}-{subtype}.x"
            try:
                soundfile.write(path, NOISE, RATE, format=form, subtype=subtype)
                whole = audio.load(part(path))
            except Exception:  # not by libsndfile, or not by us
                continue
            read.add(form)
            cut(path, 0.6)
            assert str(path) in refusal(audio.load, part(path))
            taken = part(path, truncated=True)
            try:
                wave = audio.load(taken)
            except UserError:
                continue
            assert len(wave) == pytest.approx(RATE * audio.duration(taken), abs=1)
            assert len(wave) < 0.7 * len(whole)
    assert " ".join(sorted(read)) == "AIFF AU CAF FLAC HTK MP3 NIST OGG RF64 SDS SVX W64 WAV WAVEX"


@pytest.mark.parametrize("subtype", ["ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.95, 0.999])
def test_packets_are_counted_not_their_bytes(tmp_path: Path, subtype: str, share: float) -> None:
    path = tmp_path / "a.caf"
    soundfile.write(path, np.tile(NOISE, 2), RATE, format="CAF", subtype=subtype)
    whole = audio.load(part(path))
    cut(path, share)
    os.utime(path, (1, 1))
    assert "of 4.00 s" in refusal(audio.duration, part(path))
    assert "of 4.00 s" in refusal(audio.load, part(path))
    taken = part(path, truncated=True)
    wave = audio.load(taken)
    assert len(wave) == RATE * audio.duration(taken)
    assert len(wave) % 4096 == 0
    assert share * len(whole) - 2 * 4096 < len(wave) < share * len(whole)
    assert np.array_equal(wave, whole[: len(wave)])
    assert audio.is_cut(taken)


@pytest.mark.parametrize("share", [0.4, 0.7])
def test_so_they_are_of_mp3_in_wav(tmp_path: Path, share: float) -> None:
    raw = mp3(tmp_path / "a.mp3", 8.0)
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 44_100, 5_500, 1, 0, 12, 1, 2, 144, 1, 0)
    body = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(raw)) + raw
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body)
    assert audio.duration(part(path)) == pytest.approx(8.0, abs=0.1)
    cut(path, share)
    assert "of 8.0" in refusal(audio.duration, part(path))
    taken = part(path, truncated=True)
    assert len(audio.load(taken)) == pytest.approx(RATE * audio.duration(taken), abs=1)


# --- lengths that are estimated ---


def mp3(path: Path, seconds: float, seed: int = 0) -> bytes:
    """Variable in its rate: quiet, then loud."""
    wave = np.random.default_rng(seed).normal(0, 0.1, int(44_100 * seconds)) * np.linspace(
        0.001, 1, int(44_100 * seconds)
    )
    with soundfile.SoundFile(path, "w", 44_100, 1, "MPEG_LAYER_III", format="MP3", bitrate_mode="VARIABLE") as file:
        for start in range(0, len(wave), 4096):
            file.write(wave[start : start + 4096])
    return path.read_bytes()


def bare(raw: bytes) -> bytes:
    """Without its first frame, which tells the number of frames."""
    begin = raw.index(b"\xff\xfb")
    assert b"Xing" in raw[begin : begin + 64] or b"Info" in raw[begin : begin + 64]
    return raw[raw.index(b"\xff\xfb", begin + 64) :]


def tagged(raw: bytes) -> bytes:
    """With a tag before and one behind, and in the first what might be a frame."""
    return b"ID3\x03\0\0\0\0\x02\x00" + b"\xff\xfb\x90\x44".ljust(256, b"\0") + raw + b"TAG".ljust(128, b"\xff")


def vbri(raw: bytes, frames: int) -> bytes:
    frame = raw[: raw.index(b"\xff\xfb", 4)]
    head = b"VBRI" + struct.pack(">HHHII", 1, 0, 50, len(raw), frames)
    return frame[:4] + bytes(32) + head + bytes(len(frame) - 36 - len(head)) + raw


MP3S: dict[str, tuple[Callable[[bytes], bytes], float]] = {
    "with its length": (lambda raw: raw, 8.0),
    "without": (bare, 8.0),
    "without, tagged": (lambda raw: tagged(bare(raw)), 8.0),
    "with, tagged": (tagged, 8.0),
    "twice": (lambda raw: raw + raw, 16.0),
    "twice, tagged": (lambda raw: tagged(raw) + tagged(raw), 16.0),
    "without, twice": (lambda raw: bare(raw) + bare(raw), 16.0),
    "the second without": (lambda raw: raw + bare(raw), 16.0),
    "three of them": (lambda raw: raw + bare(raw) + raw, 24.0),
    "from the loud half": (lambda raw: bare(raw)[len(raw) // 2 :], 0.0),
    "VBRI": (lambda raw: vbri(bare(raw), 306), 8.0),
    "VBRI of half": (lambda raw: vbri(bare(raw), 153), 8.0),
}


@pytest.mark.parametrize("name", MP3S)
def test_an_mp3_is_as_long_as_what_is_decoded_to_its_end(tmp_path: Path, name: str) -> None:
    change, seconds = MP3S[name]
    path = tmp_path / "a.mp3"
    path.write_bytes(change(mp3(path, 8.0)))
    os.utime(path, (1, 1))
    wave = audio.load(part(path))
    assert len(wave) == pytest.approx(RATE * audio.duration(part(path)), abs=1)
    if seconds:
        assert len(wave) / RATE == pytest.approx(seconds, abs=0.2)  # each adds a frame or two
    else:
        assert 2 < len(wave) / RATE < 6
    start = len(wave) // RATE - 1  # in whole seconds both rates have a sample
    later = audio.load(part(path, start=float(start), end=start + 0.5))
    assert np.abs(later - wave[start * RATE :][:8000])[500:-500].max() < 1e-3


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
def test_ogg_streams_in_a_chain_are_all_decoded(tmp_path: Path, suffix: str) -> None:
    one, other = (
        write(tmp_path / f"{name}.{suffix}", np.tile(NOISE, n)[: n * 30_000], 48_000)
        for name, n in (("a", 4), ("b", 8))
    )
    waves = [audio.load(part(path)) for path in (one, other)]
    chain = tmp_path / f"chain.{suffix}"
    chain.write_bytes(one.read_bytes() + other.read_bytes() + one.read_bytes())
    expected = np.concatenate([*waves, waves[0]])
    assert audio.duration(part(chain)) == pytest.approx(len(expected) / RATE)
    wave = audio.load(part(chain))
    assert len(wave) == len(expected)
    assert np.corrcoef(wave, expected)[0, 1] > 0.999
    assert np.abs(audio.load(part(chain, start=1.5, end=3.0))[500:-500] - wave[24_000:48_000][500:-500]).max() < 1e-3
    assert "breaks off after" in refusal(audio.load, part(cut(chain, 0.7)))


def test_streams_of_two_rates_are_refused(tmp_path: Path) -> None:
    one, other = (write(tmp_path / f"{rate}.ogg", np.tile(NOISE, 3), rate) for rate in (16_000, 48_000))
    one.write_bytes(one.read_bytes() + other.read_bytes())
    assert "16000 Hz, another 48000 Hz" in refusal(audio.duration, part(one))
