"""Without torchaudio all of bas works; with it, what took its place gives its values."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import ast
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from places import ROOT
from sounds import tones

from bas.corpora import export
from bas.encoders import load_encoder
from bas.encoders.aligner import viterbi
from bas.speech import audio

CPU = torch.device("cpu")
FAULT = "Could not load this library: /somewhere/libtorchaudio.so"


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)


@pytest.mark.torchaudio
@pytest.mark.parametrize("rate", [7, 8_000, 11_025, 12_345, 22_050, 24_000, 32_000, 44_056, 44_100, 48_000, 96_000])
def test_resampling(rate: int) -> None:
    from torchaudio.transforms import Resample

    wave = noise(rate + 7)
    theirs, ours = Resample(rate, 16_000)(torch.from_numpy(wave)).numpy(), audio.resample(wave, rate)
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 1e-6


@pytest.mark.torchaudio
@pytest.mark.parametrize("samples", [1, 399, 400, 53_211])
def test_log_mel(samples: int) -> None:
    """A value in a hundred falls to the other side of a float16 step, one step apart."""
    from torchaudio.transforms import MelSpectrogram

    wave = 0.1 * noise(samples)
    mel_DT = MelSpectrogram(16_000, n_fft=400, hop_length=160, n_mels=80, pad_mode="constant")(torch.from_numpy(wave))
    theirs_TD = mel_DT.clamp_min(1e-6).log().T.numpy()
    encoder = load_encoder("log-mel", CPU)
    (ours_LTD,) = encoder.encode([encoder.prepare(wave)])
    ours_TD = ours_LTD[0].numpy()
    assert np.abs(ours_TD - theirs_TD).max() < 1e-4
    halves = ours_TD.astype(np.float16), theirs_TD.astype(np.float16)
    assert (halves[0] != halves[1]).mean() < 0.02
    assert np.abs(halves[0].astype(np.float32) - halves[1].astype(np.float32)).max() < 2 * np.spacing(np.float16(9))


@pytest.mark.torchaudio
@pytest.mark.parametrize("seconds", [0.4, 1.3, 10.0])
def test_loudness(seconds: float) -> None:
    from torchaudio.functional import loudness

    wave = 0.25 * noise(round(16_000 * seconds)) * np.linspace(0.01, 1, round(16_000 * seconds), dtype=np.float32)
    out = audio.to_loudness(wave).astype(np.float64)
    shrunk = torch.from_numpy(out * 0.25 / np.abs(out).max())[None]  # its filters clip at 1.0
    level = float(loudness(shrunk, 16_000)) - 20 * np.log10(0.25 / np.abs(out).max())
    assert level == pytest.approx(-23, abs=1e-4)


@pytest.mark.torchaudio
def test_alignment() -> None:
    """200 of 200 paths are equal, with letters that repeat and recordings that hardly hold them."""
    from torchaudio.functional import forced_align, merge_tokens

    rng = np.random.default_rng(0)
    for _ in range(200):
        classes, letters = int(rng.integers(3, 30)), int(rng.integers(1, 40))
        flat = rng.integers(1, classes, letters).tolist()
        frames = letters + sum(a == b for a, b in pairwise(flat)) + int(rng.integers(0, 60))
        log_probs_TC = torch.from_numpy(rng.standard_normal((frames, classes)).astype(np.float32)).log_softmax(1)
        paths, scores = forced_align(log_probs_TC[None], torch.tensor([flat]), blank=0)
        theirs = [(span.start, span.end) for span in merge_tokens(paths[0], scores[0], 0)]
        assert viterbi(log_probs_TC.numpy(), flat, 0) == theirs


def test_whoever_imports_transformers_has_settled_torchaudio_first() -> None:
    """`bas.encoders.base` does, when it is imported; `transformers` falls with a torchaudio that does not load.

    Whatever else imports classes of `transformers` does so in a function, after that.
    """
    count = 0
    for path in (ROOT / "benchmarks").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "transformers"], path
    for path in (ROOT / "bas").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
        names |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        top = {n.module for n in tree.body if isinstance(n, ast.ImportFrom) and n.module}
        if any(name.partition(".")[0] == "transformers" for name in names) and path.name != "base.py":
            count += 1
            inside = path.parent.name == "encoders"  # the room's own __init__ comes first
            assert inside or any(name.startswith("bas.encoders") for name in top), path
    assert count > 5


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, str]:
    """An environment in which torchaudio is there and does not load."""
    stub = tmp_path / "stub" / "torchaudio"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text(f"raise OSError({FAULT!r})\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(stub.parent), *sys.path]), "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.slow
def test_the_main_job_does_without(broken: dict[str, str], tmp_path: Path) -> None:
    corpus = tones(tmp_path / "recordings")
    export.write(corpus, tmp_path / "tones.csv")
    text = (tmp_path / "tones.csv").read_text().splitlines()
    speakers = [f"{row},{f's{i // 2 % 4}' if i else 'speaker'}" for i, row in enumerate(text, start=0)]
    (tmp_path / "tones.csv").write_text("\n".join(speakers) + "\n")
    small = "--seeds 1 --workers 1 --space ser_bas3 --set epochs=1 --set width=16 --set strategy=random"
    lines = [
        "extract --corpus manifest --root tones.csv --encoder log-mel",
        "extract --corpus manifest --root tones.csv --encoder bas-hubert-nano --layers 3",
        f"compare --features runs/features/tones-bas-hubert-nano --layer 3 {small} --protocol speaker:2 --name done",
    ]
    for line in lines:
        command = [sys.executable, "-m", "bas", *line.split()]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=broken)
        assert (done.returncode, done.stderr) == (0, ""), line
        assert "torchaudio" not in done.stdout
    assert (tmp_path / "runs/done/table.md").exists()


@pytest.mark.slow
@pytest.mark.parametrize("first", ["bas.encoders", "transformers, transformers.utils, bas.encoders"])
def test_whoever_imports_it_on_purpose_is_told_why_it_fails(first: str, broken: dict[str, str], tmp_path: Path) -> None:
    program = f"import {first}, transformers.audio_utils, torchaudio"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=broken)
    assert done.returncode == 1
    assert done.stderr.endswith(f"OSError: {FAULT}\n")


@pytest.mark.slow
def test_the_recipe_says_in_one_line_that_it_cannot(broken: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("babel")
    pytest.importorskip("espeakng_loader")
    command = [sys.executable, ROOT / "tools/nano/recipe.py", "--speech", ".", "--work", "work"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=broken)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"nano: torchaudio cannot be loaded beside torch {torch.__version__} (OSError: {FAULT})"
    )
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "work").exists()
