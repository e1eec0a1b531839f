"""A model as an ONNX graph: ONNX Runtime says what the model says, and what is no graph is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import save

import bas
from bas import blocks
from bas.cli.main import main
from bas.encoders import LOG_MEL, NANO, EncoderInfo, Padded, load_encoder
from bas.errors import UserError
from bas.models import folder as on_disk
from bas.models import onnx
from bas.models.layout import Block, Layout, make
from bas.models.predict import Model
from bas.networks.network import Standardise

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def block(name: str, **named: Any) -> Block:
    return Block(module=blocks.__name__, name=name, named=named)


def network(pool: Block, *slots: Block, **more: Any) -> Layout:
    return Layout(kind="network", slots={f"slot{i}": one for i, one in enumerate(slots)}, pool=pool, dim=8, **more)


MEAN = block("MeanPool")
LAYOUTS = {
    "transformer, statistics": network(block("StatisticsPool"), block("TransformerBlock", num_heads=2)),
    "MSA, quantiles": network(block("QuantilePool"), block("MSA", num_heads=2)),
    "FFN, attention": network(block("LastStateAttention", hidden=True), block("FFN"), residual=True),
    "simple FFN, attentive statistics": network(block("AttentiveStatisticsPool", inner=4), block("SimpleFFN")),
    "convolution, mean": network(MEAN, block("Convolution", kernel=5), stem=block("ConvStem", kernel=3, layers=2)),
    "LSTM, last": network(block("LastState"), block("LSTM", layers=2)),
    "skip, hidden mean": network(block("MeanPool", hidden=True), block("Skip"), residual=True),
    "one each": network(MEAN, block("FFN"), each_output=True),
    "committees": Layout(
        kind="mean",
        members=(
            Layout(kind="mean", members=(network(MEAN, block("FFN")),) * 2, weights=(0.5, 0.5)),
            Layout(kind="linear", pool=block("QuantilePool")),
        ),
        weights=(0.3, 0.7),
    ),
    "linear": Layout(kind="linear", pool=MEAN),
    "linear of moments": Layout(kind="linear", pool=block("StatisticsPool")),
    "states of their own": Layout(
        kind="mean",
        members=(
            network(MEAN, block("FFN"), state=1),
            Layout(kind="linear", pool=block("QuantilePool"), state=0),
            network(MEAN, block("FFN")),
        ),
        weights=(0.3, 0.5, 0.2),
    ),
}


def model_of(folder: Path, model: Model, layout: Layout, encoder: EncoderInfo | None = None, **changes: Any) -> Path:
    """A folder of a model like this one with another network, of random weights."""
    changes |= {"network": layout, "members": (), "encoder": encoder or model.description.encoder}
    described = replace(model.description, **changes)
    torch.manual_seed(0)
    made = make(layout, described.encoder.dim, len(described.outputs), len(described.layers))
    for module in made.modules():
        if isinstance(module, Standardise):
            module.set(torch.randn(len(module.mean_I)), torch.rand(len(module.mean_I)) + 0.5)
    on_disk.write(folder, described, made, [])
    return folder


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])


def said(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(session(path).get_modelmeta().custom_metadata_map["bas"])
    return about


def test_every_block_and_pool_is_in_a_layout() -> None:
    used = {one.name for layout in LAYOUTS.values() for one in layout.blocks}
    parts = {"Attention"}  # of blocks
    public = {n for n, one in vars(blocks).items() if isinstance(one, type) and one.__module__ == blocks.__name__}
    assert public - parts == used


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_graph_gives_the_models_numbers(name: str, model: Model, tmp_path: Path) -> None:
    """Whatever the batch, the number of frames, and what lies on padding."""
    states = 2 if name in ("FFN, attention", "linear", "states of their own") else 1
    encoder = replace(model.description.encoder, num_states=2)
    folder = model_of(tmp_path / "model", model, LAYOUTS[name], encoder, layers=tuple(range(states)), temperature=1.7)
    path = bas.to_onnx(folder)
    assert path == folder / "model.onnx"
    graph, own, rng = session(path), bas.load(folder, device="cpu"), torch.Generator().manual_seed(5)
    assert [one.name for one in graph.get_inputs()] == ["features", "mask"]
    assert [one.shape for one in graph.get_inputs()] == [["batch", "frames", states * 80], ["batch", "frames"]]
    for lengths in ([1], [1, 1, 1], [31], [4, 1, 9, 5]):
        x_BTI = torch.randn(len(lengths), max(lengths) + 2 * (len(lengths) > 1), states * 80, generator=rng)
        mask_BT = torch.arange(x_BTI.shape[1]) < torch.tensor(lengths)[:, None]
        with torch.inference_mode():
            wanted_BO = torch.cat(
                [own.network(x_BTI[b : b + 1, :n], mask_BT[b : b + 1, :n]) for b, n in enumerate(lengths)]
            )
        values_BO = np.stack([own.values(outputs_O) for outputs_O in wanted_BO])
        for padding in (0.0, -1e4):
            padded_BTI = x_BTI.where(mask_BT[..., None], torch.tensor(padding))
            outputs_BO, found_BO = graph.run(
                ["outputs", "probabilities"], {"features": padded_BTI.numpy(), "mask": mask_BT.numpy()}
            )
            assert outputs_BO == pytest.approx(wanted_BO.numpy(), abs=1e-4, rel=1e-4)
            assert found_BO == pytest.approx(values_BO, abs=1e-4)


@pytest.mark.parametrize("activation", ["sigmoid", "none"])
def test_shares_have_their_own_name(activation: str, model: Model, tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model", model, LAYOUTS["linear"], activation=activation)
    graph = session(bas.to_onnx(folder))
    given = {"features": np.full((1, 3, 80), 0.1, np.float32), "mask": np.ones((1, 3), np.bool_)}
    outputs_1O, shares_1O = graph.run(["outputs", "shares"], given)
    assert shares_1O == pytest.approx(
        1 / (1 + np.exp(-outputs_1O)) if activation == "sigmoid" else outputs_1O, abs=1e-6
    )


def test_the_file_says_how_it_is_fed_and_read(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "graphs" / "my.onnx"
    assert main(["onnx", "run-model", "--out", str(path)]) == 0
    assert f"graph: {path}; it differs from the model by " in capsys.readouterr().out
    of, about = bas.load("run-model").description, said(path)
    assert about == {
        "format": 1,
        "bas": bas.__version__,
        "model": on_disk.identity(Path("run-model")),
        "task": of.task,
        "labels": ["bright", "dull"],
        "activation": "softmax",
        "temperature": of.temperature,
        "encoder": of.encoder.to_dict(),
        "layers": list(of.layers),
        "dtype": of.dtype,
        "stride": 2,
        "sample_rate": 16_000,
        "shortest": of.shortest,
        "longest": of.longest,
        "license": dict(of.license),
    }
    assert about["encoder"]["revision"] == of.encoder.revision
    assert session(path).get_modelmeta().producer_name == "bas"
    assert [file.name for file in path.parent.iterdir()] == ["my.onnx"]


# With the encoder


@pytest.mark.parametrize(
    ("name", "padded"),
    [
        (LOG_MEL, False),
        (NANO, False),
        ("wav2vec2-layer", True),
        ("wavlm-layer", False),
        ("whisper", False),
        ("whisper, real length", False),
        ("w2v-bert", False),
        ("ast", False),
    ],
)
def test_encoder_and_network_in_one(name: str, padded: bool, model: Model, tmp_path: Path) -> None:
    """A wave in; what `predict_wave` says of it out, with states rounded and averaged in the graph."""
    family, _, real = name.partition(", ")
    place = family if family in (LOG_MEL, NANO) else str(save(tmp_path / family, family))
    encoder = load_encoder(place, CPU, real_length=bool(real))
    info = (Padded(encoder, 0.5) if padded else encoder).info
    layers = (0,) if info.num_states == 1 else (info.num_states - 1, 0)
    of: dict[str, Any] = {"layers": layers, "stride": 3, "dtype": "float16", "temperature": 0.8, "longest": 45.0}
    folder = model_of(tmp_path / "model", model, network(MEAN, block("MSA", num_heads=2), block("LSTM")), info, **of)
    path = bas.to_onnx(folder, with_encoder=True)
    graph, own = session(path), bas.load(folder, device="cpu")
    assert [(one.name, one.shape) for one in graph.get_inputs()] == [("wave", [1, "samples"])]
    for samples in (encoder.min_samples, 2_901, 8_000):
        wave_N = 0.1 * np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
        (expected,) = own.predict_wave(wave_N, 16_000)
        outputs_1O, values_1O = graph.run(["outputs", "probabilities"], {"wave": wave_N[None]})
        assert values_1O[0] == pytest.approx(list(expected.values.values()), abs=1e-4)
        assert outputs_1O.shape == (1, 2)
    assert said(path)["longest"] == (0.5 if padded else {"whisper": 30.0, "ast": 2.575}.get(family, 45.0))


def test_a_graph_rounds_and_averages_as_the_store(model: Model) -> None:
    """A float16 store holds 0.1 as 0.09998; the last of three groups of frames has one."""

    class Seen(onnx.Head):
        def forward(self, features: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return features, mask

    for dtype, value in (("float16", 0.0999755859375), ("float32", float(np.float32(0.1)))):
        of = replace(model.description, dtype=dtype, stride=2)
        features, mask = onnx.OfStates(Seen(model.network, of), of)(torch.full((1, 5, 80), 0.1))
        assert features.unique().tolist() == [value]
        assert features.shape == (1, 3, 80)
        assert mask.all()


# What is refused


def test_what_is_missing_is_named(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name == "onnxscript" else sys)
    with pytest.raises(UserError, match=r"needs onnxscript, which is not installed here: pip install 'bas\[onnx\]'"):
        bas.to_onnx("run-model", out=tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["run-model", "--out", "x.pb"], "--out x.pb: must end in .onnx"),
        (["run-model", "--out", "there.onnx"], "--out there.onnx: is there already; delete it, or name another"),
        (["run-model", "--encoder", "log-mel"], "--encoder: only a graph --with-encoder has one"),
        (["own-model", "--out", "x.onnx"], "search_spaces.own.Own.Doubled is not one of bas.blocks; name the file"),
        (["nowhere"], "nowhere: no model here"),
    ],
)
def test_what_cannot_be_is_refused(home: Path, words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("there.onnx").write_text("")
    assert main(["onnx", *words]) == 2
    message = capsys.readouterr().err
    assert why in message
    assert message.count("\n") == 1
    assert not Path("x.onnx").exists()


def test_blocks_of_ones_own(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    assert main(["onnx", "own-model", "--space", "own.py", "--out", str(path)]) == 0
    x_1TI = np.random.default_rng(0).standard_normal((1, 7, 80)).astype(np.float32)
    outputs_1O, _ = session(path).run(None, {"features": x_1TI, "mask": np.ones((1, 7), np.bool_)})
    own = bas.load("own-model", spaces=["own.py"], device="cpu")
    with torch.inference_mode():
        wanted_1O = own.network(torch.from_numpy(x_1TI), torch.ones(1, 7).bool())
    assert outputs_1O == pytest.approx(wanted_1O.numpy(), abs=1e-4)


FAULTS: Mapping[str, tuple[str, str]] = {
    "no operation of ONNX": ("torch.special.bessel_j0(x_BTD)", "no ONNX graph can be made of it: .*bessel_j0"),
    "a length of the example": (
        "x_BTD + x_BTD.new_zeros(1, int(mask_BT.sum(1).max()), 1)",
        "no ONNX graph can be made",
    ),
    "another number in a graph": ("x_BTD * (2.0 if torch.compiler.is_exporting() else 1.0)", "its graph is off by "),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_graph_is_said_in_one_line(
    name: str,
    home: Path,
    model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It names the block, and leaves no file."""
    what, why = FAULTS[name]
    folder = Path(shutil.copytree("own-model", tmp_path / "copy"))
    own = bas.load(folder, spaces=["own.py"], device="cpu")
    (doubled,) = [m for m in own.network.modules() if type(m).__name__ == "Doubled"]
    monkeypatch.setattr(
        type(doubled),
        "forward",
        lambda self, x_BTD, mask_BT: eval(what, {"torch": torch, "x_BTD": x_BTD, "mask_BT": mask_BT}),
    )
    monkeypatch.setattr(Model, "load", lambda *_: own)
    capfd.readouterr()
    with pytest.raises(UserError, match=rf"copy: network of search_spaces\.own\.Own\.Doubled.*: {why}") as caught:
        bas.to_onnx(folder, spaces=["own.py"])
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert {file.name for file in folder.iterdir()} == {"model.json", "model.safetensors", "README.md"}


def test_one_file_holds_2_gb(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "LARGEST", 100)
    with pytest.raises(UserError, match="of more than 2 GB, which one ONNX file cannot hold"):
        bas.to_onnx("run-model", out=tmp_path / "x.onnx")


def test_an_encoder_of_another_precision_is_left_out(model: Model, tmp_path: Path) -> None:
    encoder = load_encoder(NANO, CPU, precision="bfloat16").info
    folder = model_of(tmp_path / "model", model, LAYOUTS["linear"], encoder, layers=(1,))
    with pytest.raises(UserError, match="computes in bfloat16, a graph in float32; export the network alone"):
        bas.to_onnx(folder, with_encoder=True)
    assert bas.to_onnx(folder).exists()


def test_a_killed_export_leaves_no_file(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*arguments: object) -> None:
        raise KeyboardInterrupt

    folder = model_of(tmp_path / "model", model, LAYOUTS["linear"])
    monkeypatch.setattr(Path, "replace", dies)
    assert main(["onnx", str(folder)]) == 130
    assert {file.name for file in folder.iterdir()} == {"model.json", "model.safetensors", "README.md"}


def test_an_encoder_of_ones_own_is_left_out(model: Model, tmp_path: Path) -> None:
    encoder = replace(load_encoder(NANO, CPU).info, name="mine.py", revision="py:0123456789abcdef:Mine")
    folder = model_of(tmp_path / "model", model, LAYOUTS["linear"], encoder, layers=(1,))
    with pytest.raises(UserError, match=r"encoder mine\.py is a Python file; export the network alone"):
        bas.to_onnx(folder, with_encoder=True)
    assert bas.to_onnx(folder).exists()
