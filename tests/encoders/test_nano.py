"""The encoder in this package: it is here, small, loads without a network by the code of all others, and has learnt."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refusal
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sounds import tones
from test_encoders import CPU, encode, near, noise
from transformers import HubertConfig, HubertModel

from bas.cli.main import main
from bas.corpora import Corpus
from bas.encoders import NANO, Encoder, files_of, load_encoder
from bas.encoders.waveform import Waveform
from bas.speech import audio

FOLDER = Path(files_of(NANO))


@pytest.fixture(scope="module")
def nano() -> Encoder:
    return load_encoder(NANO, CPU)


def test_it_is_small_and_in_half_precision() -> None:
    model = HubertModel.from_pretrained(FOLDER)
    assert {p.dtype for p in model.parameters()} == {torch.float16}
    assert sum(p.numel() for p in model.parameters()) <= 5_000_000
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 10_000_000


def test_it_is_installed_with_the_package() -> None:
    root = FOLDER.parents[2]
    (patterns,) = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"].values()
    files = [str(path.relative_to(root / "bas")) for path in FOLDER.iterdir()]
    assert [f for f in files if not any(fnmatch.fnmatch(f, p) for p in patterns)] == []
    assert {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"} <= {
        Path(f).name for f in files
    }


def test_it_is_known_by_its_name_wherever_it_lies(nano: Encoder) -> None:
    info = nano.info
    assert (info.name, info.model_type, info.num_states, info.dim, info.frame_rate) == (NANO, "hubert", 7, 192, 50)
    assert info.revision.startswith("sha256:")
    assert info.input == "zero mean, unit variance"


def test_plain_transformers_gives_the_same_states(nano: Encoder) -> None:
    wave = noise(24_000)
    with torch.no_grad():
        x_BS = torch.from_numpy((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7))[None]
        model = HubertModel.from_pretrained(FOLDER, dtype=torch.float32).eval()
        states = model(x_BS, output_hidden_states=True).hidden_states
    near(encode(nano, [wave])[0], torch.cat(states))


def test_a_shared_batch_changes_nothing(nano: Encoder) -> None:
    waves = [noise(samples, seed) for seed, samples in enumerate((16_000, 5_000, 40_000))]
    for alone, together in zip((encode(nano, [w])[0] for w in waves), encode(nano, waves), strict=True):
        near(together, alone)


def test_what_it_does_not_have_is_refused_by_its_name() -> None:
    message = refusal(load_encoder, NANO, CPU, revision="main")
    assert message == f"encoder {NANO!r}: revision 'main' asked, but only a hub name has revisions"
    assert refusal(load_encoder, NANO, CPU, real_length=True).startswith(
        f"encoder {NANO!r}: real_length is for Whisper"
    )


def test_a_store_of_it_is_made_and_verified_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tones(tmp_path / "wav")
    rows = "\n".join(f"{p.stem},wav/{p.name}" for p in sorted((tmp_path / "wav").iterdir()))
    (tmp_path / "tones.csv").write_text(f"id,audio\n{rows}\n")
    monkeypatch.chdir(tmp_path)
    assert main(["extract", "--corpus", "manifest", "--root", "tones.csv", "--encoder", NANO]) == 0
    store = Path(f"runs/features/tones-{NANO}")
    assert json.loads((store / "store.json").read_text())["encoder"]["name"] == NANO
    assert main(["features", "verify", str(store)]) == 0
    assert "ok     encoder: " in capsys.readouterr().out, "a few utterances were encoded again"


def test_it_can_be_fine_tuned() -> None:
    encoder = load_encoder(NANO, CPU)
    assert isinstance(encoder, Waveform)
    encoder.trunk.requires_grad_(True)
    (out_TD,) = encoder.outputs([encoder.prepare(noise(16_000))])
    out_TD.square().mean().backward()
    assert all(p.grad is not None for name, p in encoder.trunk.named_parameters() if "masked_spec" not in name)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("espeakng_loader") is None, reason="espeak-ng: pip install 'bas[demo]'")
def test_it_has_learnt_something(nano: Encoder, tmp_path: Path) -> None:
    """On sentences it has never heard (its voices are of the synthesiser it heard too) its states tell more than those
    of the same network with random weights."""
    from bas.corpora.readers.synthetic import synthesise

    corpus = synthesise(tmp_path / "demo", speakers=6, sentences=6)
    torch.manual_seed(0)
    HubertModel(HubertConfig.from_pretrained(FOLDER)).save_pretrained(tmp_path / "random")
    learnt, random = (best_accuracy(e, corpus) for e in (nano, load_encoder(str(tmp_path / "random"), CPU)))
    assert learnt > random + 0.1, (learnt, random)


def best_accuracy(encoder: Encoder, corpus: Corpus) -> float:
    """Of a linear probe of who speaks, in sentences it has not seen, on the best state's mean."""
    states_ULD = np.stack([encode(encoder, [audio.load(u)])[0].mean(1).numpy() for u in corpus.utterances])
    labels = np.array([u.speaker for u in corpus.utterances])
    texts = np.array([u.text for u in corpus.utterances])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=5_000))
    scores = [
        cross_val_predict(model, states_ULD[:, layer], labels, groups=texts, cv=GroupKFold(3))
        for layer in range(states_ULD.shape[1])
    ]
    return max(float((of_layer == labels).mean()) for of_layer in scores)


def test_the_card_says_what_the_recipe_wrote_down() -> None:
    card, training = (FOLDER / "README.md").read_text(), json.loads((FOLDER / "training.json").read_text())
    assert card.startswith("---\nlicense: apache-2.0\n")
    for heading in ("Data", "Recipe", "What it is good for", "Limits", "Licence"):
        assert f"\n## {heading}\n" in card
    model = HubertModel(HubertConfig.from_pretrained(FOLDER))
    assert training["parameters"] == sum(p.numel() for p in model.parameters())
    numbers = [training["parameters"], training["LibriSpeech utterances"], training["espeak-ng utterances"]]
    for number in numbers:
        assert f"{number:,}" in card
    assert f"{training['hours trained on']:.1f} hours" in card
    assert f"{training['LibriSpeech speakers held out']} speakers" in card
    for name, stage in training["stages"].items():
        row = next(line for line in card.splitlines() if line.startswith(f"| `{name}`"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert f"{stage['step']:,}" in cells
        assert f"{stage['seconds'] / 60:.0f}" in cells
        figure = stage.get("held-out right", stage.get("held-out explained"))
        assert any(re.search(rf"\b{100 * figure:.1f} %", cell) for cell in cells), row
