"""Formats of recordings: those whose length can be told, and packets, which are not so many samples a byte."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import NOISE, RATE, cut, mp3, part, write
from refusals import refusal

from bas.errors import UserError
from bas.speech import audio

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
