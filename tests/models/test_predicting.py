"""Recordings in, a table out: windows, manifests, what cannot be read, a killed table, strangers' folders."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from heard import FEATURES, heard
from records import record, rewrite
from safetensors.torch import load, save

import bas
from bas.cli.main import main
from bas.errors import UserError
from bas.models import table
from bas.models.predict import Model, predict_all

pytestmark = pytest.mark.slow

OWN = """
import torch
from torch import nn

from bas.blocks import FFN, MeanPool
from bas.space import SearchSpace

OPENED = open("opened", "a").write("x")


class Doubled(nn.Module):
    def __init__(self, dim, factor=2.0):
        super().__init__()
        self.factor = factor

    def forward(self, x_BTD, mask_BT):
        return self.factor * x_BTD


space = SearchSpace({"layer1": {"doubled": Doubled}}, MeanPool)
baselines = {"plain": SearchSpace({"layer1": {"FFN": FFN}}, MeanPool)}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A comparison of tones, its model and one with a block of the user's own."""
    folder = tmp_path_factory.mktemp("predicting")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        heard(utterances=24, speakers=4, labelled=True)
        small = [f"--set={setting}" for setting in ("epochs=1", "width=8", "stride=2", "committee=1")]
        Path("own.py").write_text(OWN)
        words = ["--features", FEATURES, *small, "--set=strategy=random", "--seeds", "1", "--workers", "1"]
        rule = ["--protocol", "speaker:2"]
        for name, space in (("own", "own.py"), ("run", "ser_bas3")):
            assert main(["compare", *words, *rule, "--space", space, "--name", name]) == 0
            assert main(["export", f"runs/{name}", "--into", f"{name}-model"]) == 0
        yield folder


@pytest.fixture
def model(home: Path) -> Model:
    return bas.load("run-model", device="cpu")


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    """A copy of the model, to be damaged."""
    return Path(shutil.copytree("run-model", tmp_path / "copy"))


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
    assert max(one.end - one.start for one in said) <= longest + 0.05
    a, b = (round(16_000 * second) for second in (said[1].start, said[1].end))
    (alone,) = model.predict_wave(wave[a:b], 16_000)
    assert list(alone.values.values()) == pytest.approx(list(said[1].values.values()), abs=1e-6)
    at_8k = model.predict_wave(wave[: int(16_000 * longest)][::2], 8_000)
    assert len(at_8k) == 1, "seconds count, not samples"


def test_neither_threads_nor_company_change_a_prediction(model: Model) -> None:
    found = table.sources([Path(f"u{n:02}.wav") for n in range(24)])
    (alone, *_), many = predict_all(model, found[:1], 1), list(predict_all(model, found, 3))
    assert many[0] == alone
    assert many == list(predict_all(model, found, 1))
    assert torch.get_num_threads() > 0


@pytest.mark.parametrize("wave", [np.zeros((2, 100), np.float32), np.zeros(100, np.int16)])
def test_a_wave_of_another_shape_or_type_is_refused(model: Model, wave: np.ndarray) -> None:
    with pytest.raises(UserError, match="wave: must be floats"):
        model.predict_wave(wave, 16_000)


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


def test_a_killed_table_goes_on(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, heard_of = tmp_path / "out.jsonl", []
    predict = Model.predict

    def counted(model: Model, source: Any) -> Any:
        heard_of.append(source.id)
        if len(heard_of) == 10:
            raise KeyboardInterrupt
        return predict(model, source)

    files = [f"u{n:02}.wav" for n in range(24)]
    words = ["predict", "run-model", *files, "--out", str(out), "--workers", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(Model, "predict", counted)
        assert main(words) == 130
    assert not out.exists()
    with (tmp_path / "out.jsonl.part").open("a") as part:
        part.write('{"id": "u0')  # a line that was not finished
    done = set(heard_of[:9])
    with monkeypatch.context() as patch:
        heard_of.clear()
        heard_of += [""] * 10
        patch.setattr(Model, "predict", counted)
        assert main(words) == 0
    again = set(heard_of[10:])
    assert len(again & done) < len(done)
    assert len(again) < 24
    assert len(out.read_text().splitlines()) == 24
    assert not (tmp_path / "out.jsonl.part").exists()
    assert main(words) == 2, "what is there stays"
    straight = tmp_path / "straight.jsonl"
    assert main(["predict", "run-model", *files, "--out", str(straight)]) == 0
    assert straight.read_text() == out.read_text()


def test_another_model_does_not_go_on_with_a_table(home: Path, tmp_path: Path) -> None:
    part = tmp_path / "out.csv.part"
    part.write_text('{"model": "other"}\n{"id": "u00.wav", "said": []}\n')
    assert main(["predict", "run-model", "u00.wav", "--out", str(tmp_path / "out.csv")]) == 0
    assert len(rows((tmp_path / "out.csv").read_text())) == 1


# Folders of strangers


def damaged(copy: Path, **changes: Any) -> None:
    rewrite(copy / "model.json", record(copy / "model.json") | changes)


@pytest.mark.parametrize(
    ("block", "why"),
    [
        ("os.system", "network: block os.system is not one of bas.blocks; name the file"),
        ("bas.blocks.nn", "network: block bas.blocks.nn is not one of bas.blocks"),
        ("bas.blocks.feed_forward", "network: block bas.blocks.feed_forward is not one of bas.blocks"),
        ("bas.util.files.sweep", "network: block bas.util.files.sweep is not one of bas.blocks"),
    ],
)
def test_only_blocks_of_bas_are_made(copy: Path, block: str, why: str) -> None:
    network = record(copy / "model.json")["network"]
    network["slots"]["layer1"] = {"block": block, "given": ["touch executed"], "named": {}}
    damaged(copy, network=network)
    with pytest.raises(UserError, match=why):
        bas.load(copy)
    assert not Path("executed").exists()


def test_a_block_of_ones_own_is_asked_for(home: Path) -> None:
    before = Path("opened").read_text()
    with pytest.raises(UserError, match=r"block search_spaces\.own\.Doubled .* with --space, whose code is then run"):
        bas.load("own-model")
    assert Path("opened").read_text() == before, "its code was not run"
    assert [one.label for one in bas.load("own-model", spaces=["own.py"]).predict("u00.wav")]
    Path("edited").mkdir(exist_ok=True)
    Path("edited/own.py").write_text(OWN.replace("2.0", "3.0"))
    with pytest.raises(UserError, match=r"own\.py: edited since"):
        bas.load("own-model", spaces=["edited/own.py"])
    with pytest.raises(UserError, match="was made without ser_bas4; it names own"):
        bas.load("own-model", spaces=["ser_bas4"])


def test_a_damaged_folder_is_refused_in_one_line(copy: Path, tmp_path: Path) -> None:
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    state = load(whole)

    def refused(why: str) -> None:
        with pytest.raises(UserError, match=why) as caught:
            bas.load(copy)
        assert "\n" not in str(caught.value)

    weights.write_bytes(whole[:-100])
    refused("model.safetensors: damaged: ")
    weights.write_bytes(b"")
    refused("model.safetensors: damaged: ")
    weights.unlink()
    refused("model.safetensors: no such file")
    name = next(iter(state))
    weights.write_bytes(save({n: v for n, v in state.items() if n != name}))
    refused(f"{name}: missing")
    weights.write_bytes(save(state | {"more": torch.zeros(1)}))
    refused("more: unknown")
    weights.write_bytes(save(state | {name: torch.zeros(3, 3, 3)}))
    refused(rf"{name}: shape \[3, 3, 3\]")
    weights.write_bytes(save(state | {name: state[name].half()}))
    refused(f"{name}: type torch.float16, model.json makes torch.float32")
    weights.write_bytes(save(state | {name: torch.full_like(state[name], torch.nan)}))
    refused(f"{name}: holds NaN")
    weights.write_bytes(whole)
    bas.load(copy)
    damaged(copy, format=99)
    refused("model.json: format: must be 1, not 99")
    damaged(copy, format=1, stride="two")
    refused("model.json: stride: must be a whole number, not 'two'")
    text = (copy / "model.json").read_text()
    (copy / "model.json").write_text(text.replace('"dull"', '"doll"'))
    refused("model.json: sha256: differs")
    (copy / "model.json").unlink()
    refused("no model here")


def test_a_folder_that_promises_too_much_takes_no_memory(copy: Path) -> None:
    """Its weights are compared before anything of that size is made."""
    damaged(copy, network=record(copy / "model.json")["network"] | {"dim": 8_000_000})
    with pytest.raises(UserError, match="shape"):
        bas.load(copy)


def test_another_encoder_is_refused(copy: Path, hubert: Path) -> None:
    with pytest.raises(UserError, match=r"another than the model's .*; name its place with --encoder"):
        bas.load(copy, encoder=str(hubert)).predict("u00.wav")
    with pytest.raises(UserError, match=r"no such name|no model folder"):
        bas.load(copy, encoder="./nowhere").predict("u00.wav")
