"""One odd recording of many: skipped and listed, or taken and named; the others are as they were."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from records import rewrite
from refusals import refusal
from stores import manifest, names

from bas.cli.main import main
from bas.features.store import FeatureStore, StoreInfo

GOOD = [f"u{i}" for i in range(6)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    return tmp_path


def corpus(here: Path) -> Path:
    """Six tones, three that are cut off, one with an absurd rate, and one whose rate shares nothing with 16 kHz."""
    seconds = {**names(), **dict.fromkeys(("cut", "short", "nearly", "absurd", "odd"), 2.0)}
    root = manifest(here / "list.csv", seconds)
    for name, share in (("cut", 0.5), ("short", 0.05), ("nearly", 0.9)):
        path = here / "wav" / f"{name}.wav"
        os.truncate(path, 44 + int((path.stat().st_size - 44) * share) // 2 * 2)
    for name, rate in (("absurd", 2**31 - 1), ("odd", 400_009)):
        path = here / "wav" / f"{name}.wav"
        raw = bytearray(path.read_bytes())
        struct.pack_into("<I", raw, 24, rate)
        path.write_bytes(raw)
    return root


def extract(root: Path, *more: str, folder: str = "store") -> int:
    return main(
        ["extract", "--corpus", "manifest", "--root", str(root), "--encoder", "log-mel", "--features", folder, *more]
    )


def test_the_others_go_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert extract(corpus(here)) == 0
    said = capsys.readouterr().out
    store = FeatureStore(here / "store")
    assert sorted(store.ids) == [*sorted(["odd", *GOOD])]
    assert set(store.info.skipped) == {"cut", "short", "nearly", "absurd"}
    for name, there in (("cut", "1.00"), ("short", "0.10"), ("nearly", "1.80")):
        assert f"{name}: {here / 'wav' / name}.wav: {name} breaks off after {there} of 2.00 s: truncated?" in said
    assert "its header says 2,147,483,647 Hz" in said


def test_taken_by_option_they_are_named_and_the_store_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = corpus(here)
    assert extract(root, "--accept-truncated") == 0
    assert "note: 3 utterances break off and are taken as far as they go: cut, nearly, short" in capsys.readouterr().out
    info = StoreInfo.read(here / "store")
    assert info.truncated
    assert {name: info.recordings[name][1] / 16_000 for name in ("cut", "short", "nearly")} == {
        "cut": 1.0,
        "short": 0.1,
        "nearly": 1.8,
    }
    capsys.readouterr()
    assert extract(root) == 2
    assert "holds another store (--accept-truncated: True there, False asked)" in capsys.readouterr().err
    assert extract(root, "--accept-truncated") == 0
    assert main(["features", "verify", "store"]) == 0
    assert "3 break off and were taken as far as they go" in capsys.readouterr().out
    assert main(["features", "info", "store"]) == 0
    assert "--accept-truncated" in capsys.readouterr().out
    assert extract(root, folder="plain") == 0
    assert main(["features", "merge", "store", "plain", "--into", "both"]) == 2
    assert "truncated differs (True and False)" in capsys.readouterr().err


def test_verify_names_what_was_cut_off_before_an_earlier_version_took_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = corpus(here)
    assert extract(root, "--accept-truncated") == 0
    path = here / "store" / "store.json"
    raw = json.loads(path.read_text())
    del raw["truncated"]  # as version 0.4.0 wrote it
    rewrite(path, raw)
    capsys.readouterr()
    assert main(["features", "verify", "store"]) == 2
    said = capsys.readouterr().out
    for name in ("cut", "short", "nearly"):
        assert f"{name}: {here / 'wav' / name}.wav: {name} breaks off after" in said
    assert "u0: " not in said
    assert extract(root) == 0  # goes on: what it holds stays


def test_others_whose_length_is_in_doubt_are_skipped_and_listed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = manifest(here / "list.csv", {**names(), **dict.fromkeys(("longer", "empty", "packets", "voc"), 2.0)})
    wave, rate = soundfile.read(here / "wav" / "packets.wav")
    raw = (here / "wav" / "longer.wav").read_bytes()
    (here / "wav" / "longer.wav").write_bytes(raw[:40] + struct.pack("<I", 32_000) + raw[44:])
    (here / "wav" / "empty.wav").write_bytes(raw[:40] + bytes(4) + b"LIST" + struct.pack("<I", 4000) + bytes(4000))
    soundfile.write(here / "wav" / "packets.wav", wave, rate, format="CAF", subtype="ALAC_16")
    os.truncate(here / "wav" / "packets.wav", (here / "wav" / "packets.wav").stat().st_size // 2)
    soundfile.write(here / "wav" / "voc.wav", wave, rate, format="VOC")
    assert extract(root) == 0
    said = capsys.readouterr().out
    assert sorted(FeatureStore(here / "store").ids) == sorted(GOOD)
    assert "longer: its header says 1.00 s, but 2.00 s lie there" in said
    assert "empty holds no samples" in said
    assert "packets breaks off after 0." in said
    assert "of 2.00 s: truncated?" in said
    assert "VOC: how long it should be cannot be told; convert it to WAV or FLAC" in said
    assert extract(root, "--accept-truncated", folder="taken") == 0
    said = capsys.readouterr().out
    assert "note: 2 utterances break off and are taken as far as they go: longer, packets" in said
    assert sorted(FeatureStore(here / "taken").ids) == sorted([*GOOD, "longer", "packets"])
    assert main(["features", "verify", "taken"]) == 0
    assert main(["features", "verify", "store"]) == 0


def test_without_any_that_can_be_read_the_first_is_told(here: Path) -> None:
    root = manifest(here / "list.csv", {"cut": 2.0})
    os.truncate(here / "wav" / "cut.wav", 20_000)
    from bas.api import extract as by_call

    message = refusal(by_call, {"corpus": {"reader": "manifest", "root": str(root)}, "encoder": {"name": "log-mel"}})
    assert "no utterance can be used" in message
    assert "breaks off after" in message


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("value", [0.0, 0.25])
def test_silent_recordings_are_counted_and_named(
    here: Path, capsys: pytest.CaptureFixture[str], value: float, rate: int
) -> None:
    root = manifest(here / "list.csv", names())
    for name in ("u1", "u4"):
        soundfile.write(here / "wav" / f"{name}.wav", np.full(rate, value), rate)
    assert extract(root) == 0
    assert "note: 2 of 6 utterances encoded now are silent, each of one value throughout: u1, u4" in (
        capsys.readouterr().out
    )
    for name in GOOD:
        soundfile.write(here / "wav" / f"{name}.wav", np.full(rate, value), rate)
    assert extract(root, folder="other") == 0
    assert "note: all 6 utterances encoded now are silent" in capsys.readouterr().out


@pytest.mark.parametrize(("form", "subtype"), [("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("AIFF", "FLOAT"), ("AU", "FLOAT")])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_integers_stored_as_floats_are_counted_and_named(
    here: Path, capsys: pytest.CaptureFixture[str], form: str, subtype: str, rate: int
) -> None:
    root = manifest(here / "list.csv", names())
    noise = np.random.default_rng(0).uniform(-1, 1, rate)
    for name, scale in (("u1", 2**15), ("u2", 7.9), ("u4", 10.0)):
        soundfile.write(here / "wav" / f"{name}.wav", noise * scale, rate, format=form, subtype=subtype)
    assert extract(root) == 0
    assert "note: 2 of 6 utterances encoded now have a peak beyond 8 times full scale: integers stored as " in (
        said := capsys.readouterr().out
    )
    assert "floating-point numbers: u1, u4" in said
    assert "silent" not in said


def test_of_sound_nothing_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert extract(manifest(here / "list.csv", names()), "--accept-truncated") == 0
    assert "note:" not in capsys.readouterr().out
