"""A model's folder from elsewhere is looked at before it is built; a model that is cached needs no network."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import transformers
from families import CONFIGS, save
from models import SMALL
from refusals import refusal
from test_encoders import CPU

from bas.encoders import load_encoder
from bas.encoders.aligner import Aligner
from bas.encoders.opening import check_config
from bas.encoders.text import load_text_encoder

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 377607901\n"
LAYERS = {"whisper": "encoder_layers"}
WIDTH = {"whisper": "d_model"}


def changed(folder: Path, **values: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def in_time(load: Callable[[], str]) -> str:
    """The refusal, within seconds and little memory."""
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = load()
    assert len(message.splitlines()) == 1
    assert "config.json" in message or "Validation error for field" in message
    assert time.process_time() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB
    return message


@pytest.mark.parametrize(
    "family", ["wav2vec2-layer", "wavlm-group", "hubert-batch", "data2vec-audio", "sew", "sew-d", "whisper"]
)
def test_a_speech_encoder_of_no_sane_size_is_refused(family: str, tmp_path: Path) -> None:
    good = save(tmp_path / "good", family)
    load_encoder(str(good), CPU)
    layers, width = LAYERS.get(family, "num_hidden_layers"), WIDTH.get(family, "hidden_size")
    changes: list[dict[str, Any]] = [
        {layers: 10**7},
        {layers: -1},
        {layers: 0},
        {layers: "many"},
        {layers: 2.5},
        {width: 10**12},
        {width: 2**17 - 8},
        {width: -32},
        {width: 0},
        {width: "wide"},
        {width: True},
    ]
    if family != "whisper":
        stride = list(CONFIGS[family].conv_stride)
        changes += [
            {"conv_stride": [0, *stride[1:]]},
            {"conv_stride": [-5, *stride[1:]]},
            {"conv_stride": ["5", *stride[1:]]},
            {"conv_kernel": [10**9, *stride[1:]]},
            {"conv_stride": [1] * 10**5, "conv_kernel": [1] * 10**5, "conv_dim": [1] * 10**5},
            {"num_attention_heads": 0},
            {"num_conv_pos_embeddings": 2**18},
        ]
    for index, change in enumerate(changes):
        folder = changed(shutil.copytree(good, tmp_path / str(index)), **change)
        in_time(lambda folder=folder: refusal(load_encoder, str(folder), CPU))  # type: ignore[misc]


def test_a_text_encoder_and_an_aligner_of_no_sane_size_are_refused(bert: str, tmp_path: Path) -> None:
    load_text_encoder(bert, CPU)
    changes: list[dict[str, Any]] = [
        {"num_hidden_layers": 10**7},
        {"num_hidden_layers": "many"},
        {"hidden_size": 10**12},
        {"hidden_size": -1},
        {"vocab_size": 10**9},
        {"vocab_size": 10**7},
        {"num_attention_heads": 0},
        {"max_position_embeddings": 10**12},
    ]
    for index, change in enumerate(changes):
        folder = changed(Path(shutil.copytree(bert, tmp_path / str(index))), **change)
        in_time(lambda folder=folder: refusal(load_text_encoder, str(folder), CPU))  # type: ignore[misc]
    ctc = tmp_path / "ctc"
    transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**SMALL, vocab_size=8)).save_pretrained(ctc)
    wrong: list[dict[str, Any]] = [{"num_hidden_layers": 10**7}, {"conv_stride": [0] * 7}, {"hidden_size": 2**17 - 8}]
    for change in wrong:
        folder = changed(shutil.copytree(ctc, tmp_path / f"ctc-{next(iter(change))}"), **change)
        assert "aligner" in in_time(lambda folder=folder: refusal(Aligner, str(folder), CPU))  # type: ignore[misc]


def test_the_sizes_of_real_models_pass() -> None:
    large: dict[str, Any] = {
        "hidden_size": 1920,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "intermediate_size": 7680,
    }
    for config in (
        *CONFIGS.values(),
        transformers.Wav2Vec2Config(**large),  # XLS-R 2B
        transformers.WhisperConfig(
            d_model=1280, encoder_layers=32, encoder_attention_heads=20, decoder_attention_heads=20, num_mel_bins=128
        ),
        transformers.BertConfig(vocab_size=250_000),
        transformers.DebertaV2Config(max_relative_positions=-1, relative_attention=True),
        transformers.DistilBertConfig(),
        transformers.AlbertConfig(),
        transformers.RobertaConfig(),
        transformers.ModernBertConfig(),
    ):
        check_config("encoder", "someone/model", config)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "pytorch_model.bin", "preprocessor_config.json"])
def test_a_pointer_of_git_lfs_is_told_as_one(file: str, tmp_path: Path, bert: str) -> None:
    folder = save(tmp_path / "hubert", "hubert-group")
    texts = Path(shutil.copytree(bert, tmp_path / "bert"))
    for load, where in ((load_encoder, folder), (load_text_encoder, texts), (Aligner, folder)):
        (where / file).write_text(POINTER)
        message = refusal(load, str(where), CPU)
        assert f"{file}: a git-lfs pointer" in message
        assert "git lfs pull" in message
        assert "may run code" not in message
    (texts / "vocab.txt").write_text(POINTER)


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """A hub that is asked in vain, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_GET = do_HEAD

        def log_message(self, format: str, *values: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["speech", "text"])
def test_a_cached_model_is_loaded_without_asking_the_network(
    kind: str, tmp_path: Path, bert: str, hub: tuple[str, list[str]]
) -> None:
    url, asked = hub
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub/models--someone--tiny"
    snapshot = repository / "snapshots" / commit
    shutil.copytree(save(tmp_path / "wavlm", "wavlm-group") if kind == "speech" else bert, snapshot)
    if kind == "speech":
        transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    code = {
        "speech": "from bas.encoders import load_encoder as load; print(load(name, cpu).info.revision)",
        "text": "from bas.encoders.text import load_text_encoder as load; print(load(name, cpu)[1].config.hidden_size)",
    }[kind]
    env = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    env |= {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_ENDPOINT": url}

    def run(name: str) -> subprocess.CompletedProcess[str]:
        program = f"import torch; name, cpu = {name!r}, torch.device('cpu'); {code}"
        return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)

    done = run("someone/tiny")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        commit if kind == "speech" else str(transformers.AutoConfig.from_pretrained(bert).hidden_size)
    )
    assert [path for path in asked if "someone" in path] == []
    missing = run("someone/other")
    assert "UserError" in missing.stderr.splitlines()[-1]
    assert [path for path in asked if "someone" in path]
