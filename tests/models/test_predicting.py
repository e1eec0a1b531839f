"""Recordings in, a table out: windows, manifests, what cannot be read, a killed table."""

from __future__ import annotations

import csv
import fcntl
import json
import math
import os
import re
import shutil
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from foreign import damaged

import bas
from bas.cli.main import main
from bas.encoders.logmel import LogMel
from bas.errors import UserError
from bas.models import table
from bas.models.predict import Model, predict_all
from bas.networks.costs import multiply_adds

pytestmark = pytest.mark.slow


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_a_table_of_files_folders_and_manifests(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("some").mkdir(exist_ok=True)
    for name in ("u01", "u02"):
        shutil.copy(f"{name}.wav", "some")
    Path("cut.csv").write_text("id,audio,start,end\nfirst,u03.wav,0.0,0.2\nlater,u03.wav,0.05,0.25\n")
    capsys.readouterr()
    assert main(["predict", "run-model", "u00.wav", "some", "cut.csv"]) == 0
    found = rows(capsys.readouterr().out)
    assert [row["source"] for row in found] == ["u00.wav", "some/u01.wav", "some/u02.wav", "first", "later"]
    assert [(row["start"], row["end"]) for row in found[3:]] == [("0.000", "0.200"), ("0.050", "0.250")]
    for row in found:
        assert float(row["bright"]) + float(row["dull"]) == pytest.approx(1, abs=2e-6)
        assert row["label"] == max(("bright", "dull"), key=lambda name: float(row[name]))
    assert main(["predict", "run-model", "u00.wav", "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["values"]["dull"] == pytest.approx(float(found[0]["dull"]), abs=1e-6)


def test_long_speech_is_cut_into_windows_of_one_length(model: Model, tmp_path: Path) -> None:
    longest = model.description.longest
    wave = 0.1 * np.random.default_rng(0).standard_normal(int(2.5 * longest * 16_000)).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", wave, 16_000, subtype="FLOAT")
    said = model.predict(tmp_path / "long.wav")
    assert len(said) == 3
    assert said[0].start == 0
    assert said[-1].end == pytest.approx(len(wave) / 16_000)
    assert all(one.end == other.start for one, other in pairwise(said))
    assert max(one.end - one.start for one in said) <= longest + 1e-4
    a, b = (round(16_000 * second) for second in (said[1].start, said[1].end))
    (alone,) = model.predict_wave(wave[a:b], 16_000)
    assert list(alone.values.values()) == pytest.approx(list(said[1].values.values()), abs=1e-6)
    at_8k = model.predict_wave(wave[: int(16_000 * longest)][::2], 8_000)
    assert len(at_8k) == 1, "seconds count, not samples"


def test_neither_threads_nor_company_change_a_prediction(model: Model) -> None:
    found = table.sources([Path(f"u{n:02}.wav") for n in range(24)])
    threads = torch.get_num_threads()
    (alone, *_), many = predict_all(model, found[:1], 1), list(predict_all(model, found, 3))
    assert many[0] == alone
    assert many == list(predict_all(model, found, 1))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    "wave", [np.zeros((2, 100), np.float32), np.zeros(100, np.int16), np.zeros(0), np.array([0.0, np.nan])]
)
def test_a_wave_of_another_shape_or_type_is_refused(model: Model, wave: np.ndarray) -> None:
    with pytest.raises(UserError, match="wave: must be finite floats"):
        model.predict_wave(wave, 16_000)


@pytest.mark.parametrize("rate", [0, -8000, 44_100.0, 10**9])
def test_a_rate_that_cannot_be_is_refused(model: Model, rate: Any) -> None:
    with pytest.raises(UserError, match="must be a whole number of Hz, 1000 to 768000"):
        model.predict_wave(np.zeros(1000), rate)


def test_logits_are_divided_by_the_temperature(copy: Path) -> None:
    damaged(copy, temperature=1.0)
    before = bas.load(copy, device="cpu").values(torch.tensor([1.0, 3.0]))
    damaged(copy, temperature=2.0)
    after = bas.load(copy, device="cpu").values(torch.tensor([1.0, 3.0]))
    assert before == pytest.approx(torch.tensor([1.0, 3.0]).softmax(0).numpy())
    assert after == pytest.approx(torch.tensor([0.5, 1.5]).softmax(0).numpy())


def test_a_feature_that_the_store_could_not_hold_is_refused(model: Model) -> None:
    states_LTD = torch.full((1, 5, model.description.encoder.dim), 1e6)
    assert model.description.dtype == "float16"
    with pytest.raises(UserError, match="beyond float16"):
        model.outputs(states_LTD)


def test_speech_shorter_than_the_trainings_is_told(home: Path, tmp_path: Path, capsys: Any) -> None:
    shortest = bas.load("run-model").description.shortest
    assert shortest == pytest.approx(min(len(soundfile.read(f"u{n:02}.wav")[0]) for n in range(24)) / 16_000)
    wave = soundfile.read("u00.wav")[0]
    soundfile.write(tmp_path / "short.wav", wave[: int(16_000 * (shortest - 0.1))], 16_000)
    assert main(["predict", "run-model", str(tmp_path / "short.wav"), "u00.wav"]) == 0
    assert "note: 1 lines are of speech shorter than the shortest utterance of the" in " ".join(
        capsys.readouterr().err.split()
    )
    assert main(["predict", "run-model", "u00.wav"]) == 0
    assert "note:" not in capsys.readouterr().err


def test_what_is_no_recording_is_said_in_python_too(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"z9\.wav: no such file"):
        model.predict("z9.wav")
    with pytest.raises(UserError, match="a folder; `bas predict` takes those"):
        model.predict(tmp_path)
    assert "bright, dull" in repr(model)


def test_a_model_says_what_it_costs(model: Model, home: Path) -> None:
    size = model.description.size
    assert size is not None
    assert size.parameters == sum(p.numel() for p in model.network.parameters())
    frames = math.ceil(size.seconds * model.description.encoder.frame_rate / model.description.stride)
    assert size.multiply_adds == multiply_adds(model.network, model.description.encoder.dim, frames)
    assert f"; network {size.parameters:,} parameters, {size.multiply_adds:,} multiply-adds for 5 s" in repr(model)
    assert f"{size.parameters:,} parameters" in Path("run-model/README.md").read_text()
    assert "encoder" not in model.__dict__, "it is not loaded for this"


def test_the_end_says_how_fast_it_was(home: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured: an encoder that waits shows in the median and in its share, and not in the table."""
    capsys.readouterr()
    assert main(["predict", "run-model", "u00.wav", "u01.wav", "--workers", "2", "--device", "cpu"]) == 0
    plain = capsys.readouterr()
    encode = LogMel.encode

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.2)
        return encode(*arguments)

    monkeypatch.setattr(LogMel, "encode", slowly)
    assert main(["predict", "run-model", "u00.wav", "u01.wav", "--workers", "1", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert said.out == plain.out
    seconds = sum(len(soundfile.read(name)[0]) for name in ("u00.wav", "u01.wav")) / 16_000
    found = re.search(
        r"^2 recordings, (.+) s of speech in (.+) s on one thread: (.+) times real time; median (.+) s each, (.+) % of "
        r"all in the encoder$",
        said.err,
        re.MULTILINE,
    )
    assert found, said.err
    speech, wall, pace, median, share = map(float, found.groups())
    assert speech == pytest.approx(seconds, abs=0.05)
    assert 0.4 <= wall < 60
    assert pace == pytest.approx(seconds / wall, rel=0.2)
    assert 0.2 <= median <= wall
    assert 50 < share <= 100
    assert "s of speech in" in plain.err
    assert "on 2 threads" in plain.err
    out = tmp_path / "out.csv"
    assert main(["predict", "run-model", "u00.wav", "--out", str(out)]) == 0
    assert "\n1 recording, " in capsys.readouterr().err


def test_what_cannot_be_read_is_left_out_and_told(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy("u00.wav", tmp_path / "good.wav")
    (tmp_path / "bad.wav").write_bytes(b"RIFF no more")
    monkeypatch.setattr("bas.encoders.logmel.LogMel.min_samples", 200)
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16_000)
    out = tmp_path / "out.csv"
    assert main(["predict", "run-model", str(tmp_path), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "2 of 3 recordings could not be predicted; the first: " in said
    assert "short.wav: 0.006 s are too short for encoder log-mel" in said
    assert [Path(row["source"]).name for row in rows(out.read_text())] == ["good.wav"]


@pytest.fixture
def files(home: Path) -> list[str]:
    return [f"u{n:02}.wav" for n in range(24)]


def test_a_table_that_is_killed_twice_goes_on(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, part, predict = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part", Model.timed
    words = ["predict", "run-model", *files, "--out", str(out), "--workers", "1"]
    heard_of: list[str] = []

    def dying(model: Model, source: Any) -> Any:
        heard_of.append(source.id)
        if len(heard_of) == 9:
            raise KeyboardInterrupt
        return predict(model, source)

    def kept() -> list[str]:
        return [json.loads(line)["id"] for line in part.read_text().splitlines()[1:] if line.endswith("}")]

    before: list[str] = []
    for _ in range(2):
        heard_of.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Model, "timed", dying)
            assert main(words) == 130
        assert not out.exists()
        assert not {*heard_of} & {*before}, "what is kept is not predicted again"
        assert len(kept()) > len(before) + 2
        before = kept()
        with part.open("a") as stream:
            stream.write('{"id": "u0')  # a line that was not finished
    assert main(words) == 0
    assert not part.exists()
    assert main(words) == 2, "what is there stays"
    straight = tmp_path / "straight.jsonl"
    assert main(["predict", "run-model", *files, "--out", str(straight)]) == 0
    assert straight.read_text() == out.read_text()
    assert len(out.read_text().splitlines()) == 24


@pytest.mark.parametrize("text", ['{"bas predict": "other"}\n', "somebody's own\n", ""])
def test_what_is_not_this_tables_is_not_overwritten(
    home: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "out.csv.part"
    part.write_text(text)
    words = ["predict", "run-model", "u00.wav", "--out", str(tmp_path / "out.csv")]
    assert main(words) == (2 if text else 0)
    if text:
        assert "out.csv.part: of another model or of other recordings; delete it" in capsys.readouterr().err
        assert part.read_text() == text


def test_another_recording_is_not_taken_from_a_table(home: Path, tmp_path: Path) -> None:
    shutil.copy("u00.wav", tmp_path / "x.wav")
    (before,) = table.sources([tmp_path / "x.wav"])
    first = table._digest("model", [before])
    assert table._digest("model", [before]) == first
    assert table._digest("other", [before]) != first
    soundfile.write(tmp_path / "x.wav", soundfile.read("u01.wav")[0], 16_000)
    assert table._digest("model", [before]) != first


def test_two_processes_do_not_write_one_table(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.csv"
    with out.with_name("out.csv.part").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert main(["predict", "run-model", "u00.wav", "--out", str(out)]) == 2
    assert "another process is writing it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["z9.wav"], "z9.wav: no such file or folder"),
        (["run-model"], "run-model: no recording beneath it; suffixes: .wav, .flac"),
        (["u00.wav", "u00.wav"], "u00.wav: there 2 times; name each recording once"),
        (["u00.wav", "--json", "--out", "a.csv"], "--json: is for what is printed"),
        (["u00.wav", "--workers", "0"], "'0': must be a number, 1 or more"),
        (["u00.wav", "--encoder", "./nowhere", "--out", "new/a.csv"], "name its place with --encoder"),
    ],
)
def test_what_does_not_go_together_is_refused(
    home: Path, words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "run-model", *words]) == 2
    assert why in capsys.readouterr().err
    assert not Path("new").exists()
    assert not Path("a.csv").exists()


def test_a_name_that_no_table_can_hold_is_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy("u00.wav", os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav"))
    assert main(["predict", "run-model", str(tmp_path)]) == 2
    assert "the name is not UTF-8" in capsys.readouterr().err
