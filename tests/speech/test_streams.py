"""MP3 and Ogg files, whose headers estimate a length or leave streams out: what is decoded to the end."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recordings import NOISE, RATE, cut, mp3, part, write
from refusals import refusal

from bas.speech import audio


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
