"""What can be loaded and what is refused, in one line: names, revisions, folders, precisions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import save
from models import SMALL
from refusals import refusal
from safetensors.torch import load_file, save_file
from test_encoders import CPU, encode, near, noise

from bas.encoders import LOG_MEL, MODELS, PRECISIONS, load_encoder


@pytest.fixture
def wavlm(tmp_path: Path) -> Path:
    return save(tmp_path / "wavlm", "wavlm-group")


def test_the_revision_of_a_folder_is_its_files(wavlm: Path, tmp_path: Path) -> None:
    revision = load_encoder(str(wavlm), CPU).info.revision
    shutil.copytree(wavlm, tmp_path / "copy")
    assert load_encoder(str(tmp_path / "copy"), CPU).info.revision == revision
    other = save(tmp_path / "other", "wavlm-group", seed=1)
    assert load_encoder(str(other), CPU).info.revision != revision
    (wavlm / "preprocessor_config.json").write_text(
        json.dumps({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": False})
    )
    assert load_encoder(str(wavlm), CPU).info.revision != revision


def test_the_revision_of_a_hub_name_is_its_commit(wavlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub/models--someone--tiny"
    shutil.copytree(wavlm, repository / "snapshots" / commit)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    extractor.save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    encoder = load_encoder("someone/tiny", CPU)
    assert (encoder.info.name, encoder.info.revision, encoder.info.input) == ("someone/tiny", commit, "as recorded")
    assert "'someone/tiny'" in refusal(load_encoder, "someone/tiny", CPU, revision="no-such-branch")


def test_a_revision_of_what_has_none_is_refused(wavlm: Path) -> None:
    for name in ("log-mel", str(wavlm)):
        message = refusal(load_encoder, name, CPU, revision="main")
        assert message == f"encoder {name!r}: revision 'main' asked, but only a hub name has revisions"


def test_log_mel_says_that_it_computes_on_the_cpu(wavlm: Path) -> None:
    assert load_encoder("log-mel", torch.device("cuda")).device == CPU
    assert load_encoder(str(wavlm), torch.device("meta")).device == torch.device("meta")


def test_the_folder_says_how_the_waveform_is_prepared(wavlm: Path) -> None:
    scaled, wave = noise(8_000) * 2, noise(8_000)
    normal = load_encoder(str(wavlm), CPU)
    assert normal.info.input == "zero mean, unit variance"
    near(encode(normal, [scaled])[0], encode(normal, [wave])[0])
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(wavlm)
    plain = load_encoder(str(wavlm), CPU)
    assert plain.info.input == "as recorded"
    assert not torch.allclose(encode(plain, [scaled])[0], encode(plain, [wave])[0], rtol=1e-3, atol=1e-4)


def test_weights_under_their_old_names_in_a_bin_file(tmp_path: Path) -> None:
    """What the hub holds for wav2vec 2.0: a fine-tuned model, pickled, with the weight norm's old names."""
    torch.manual_seed(0)
    model = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**SMALL, vocab_size=8))
    model.wav2vec2.save_pretrained(tmp_path / "new")
    model.config.save_pretrained(tmp_path / "old")
    old = {}
    for key, tensor in model.state_dict().items():
        head, _, which = key.partition("parametrizations.weight.original")
        old[head + {"": "", "0": "weight_g", "1": "weight_v"}[which]] = tensor
    assert "wav2vec2.encoder.pos_conv_embed.conv.weight_g" in old
    torch.save(old, tmp_path / "old/pytorch_model.bin")
    new, old_encoder = (load_encoder(str(tmp_path / name), CPU) for name in ("new", "old"))
    near(encode(old_encoder, [noise(8_000)])[0], encode(new, [noise(8_000)])[0])


@pytest.mark.parametrize("name", ["no/such-model", "such", "no such model", "./no/such/folder", ""])
def test_an_unknown_name(name: str) -> None:
    assert refusal(load_encoder, name, CPU).startswith(
        f"encoder {name!r}: not log-mel or bas-hubert-nano, no model folder"
    )


def test_a_text_model_is_refused_with_what_is_allowed(tmp_path: Path) -> None:
    transformers.BertConfig(hidden_size=32).save_pretrained(tmp_path)
    message = refusal(load_encoder, str(tmp_path), CPU)
    assert "'bert'" in message
    assert [n for n in ("log-mel", *MODELS) if n not in message] == []


CONFIG_FILES = {
    "none": None,
    "broken": "{",
    "no type": "{}",
    "wrong field": '{"model_type": "hubert", "hidden_size": "wide"}',
    "foreign code": '{"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}}',
}


@pytest.mark.parametrize("what", CONFIG_FILES)
def test_a_folder_that_is_no_model(what: str, tmp_path: Path) -> None:
    text = CONFIG_FILES[what]
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert str(tmp_path) in refusal(load_encoder, str(tmp_path), CPU)


def damage(folder: Path, what: str) -> None:
    weights = folder / "model.safetensors"
    match what:
        case "no weights":
            weights.unlink()
        case "cut off":
            weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
        case "a tensor missing":
            tensors = load_file(weights)
            del tensors["encoder.layers.1.attention.k_proj.weight"]
            save_file(tensors, weights, metadata={"format": "pt"})
        case "another size":
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
        case "broken preprocessor":
            (folder / "preprocessor_config.json").write_text("{")


@pytest.mark.parametrize("what", ["no weights", "cut off", "a tensor missing", "another size", "broken preprocessor"])
def test_a_damaged_folder_is_refused_and_never_filled_with_random_weights(what: str, wavlm: Path) -> None:
    damage(wavlm, what)
    assert str(wavlm) in refusal(load_encoder, str(wavlm), CPU)


def test_a_precision_that_cannot_be_is_refused(wavlm: Path) -> None:
    for name in (LOG_MEL, str(wavlm)):
        message = refusal(load_encoder, name, CPU, precision="double")
        assert message == f"precision 'double' is not one of {', '.join(PRECISIONS)}"
        assert "'float16' is not for the CPU" in refusal(load_encoder, name, CPU, precision="float16")
    for precision in PRECISIONS[1:]:
        message = refusal(load_encoder, LOG_MEL, torch.device("cuda"), precision=precision)
        assert message == f"encoder 'log-mel': precision '{precision}' asked, but it has no weights, only float32"


def test_float16_is_for_other_devices(wavlm: Path) -> None:
    encoder: Any = load_encoder(str(wavlm), torch.device("meta"), precision="float16")
    assert encoder.info.precision == "float16"
    for model in (encoder._model, encoder._front):
        assert {p.dtype for p in model.parameters()} == {torch.float16}


def test_real_length_is_whispers(wavlm: Path, tmp_path: Path) -> None:
    for name in (LOG_MEL, str(wavlm)):
        assert refusal(load_encoder, name, CPU, real_length=True).startswith(f"encoder {name!r}: real_length is for ")
    whisper = save(tmp_path / "whisper", "whisper")
    inputs = [load_encoder(str(whisper), CPU, real_length=real).info.input for real in (False, True)]
    assert inputs == ["log-mel padded to 30 s", "log-mel of the real length"]


@pytest.mark.parametrize(
    ("family", "preprocessor", "expected"),
    [
        (
            "wavlm-group",
            transformers.WhisperFeatureExtractor(),
            "WhisperFeatureExtractor, not Wav2Vec2FeatureExtractor",
        ),
        ("wavlm-group", transformers.Wav2Vec2FeatureExtractor(sampling_rate=8_000), "8000 Hz, not 16000 Hz"),
        ("whisper", transformers.WhisperFeatureExtractor(feature_size=128), "(128, 3000)"),
        ("whisper", transformers.WhisperFeatureExtractor(chunk_length=10), "(80, 1000)"),
    ],
)
def test_a_preprocessor_that_does_not_fit_is_refused(
    family: str, preprocessor: Any, expected: str, tmp_path: Path
) -> None:
    folder = save(tmp_path / "model", family)
    preprocessor.save_pretrained(folder)
    message = refusal(load_encoder, str(folder), CPU)
    assert str(folder) in message
    assert expected in message


@pytest.mark.parametrize("name", ["bas-hubert-nano/", "Bas-Hubert-Nano", "bas-hubert-nan", "logmel", "log-mels"])
def test_a_slip_of_the_pen_asks_no_hub(name: str) -> None:
    meant = "log-mel" if "mel" in name else "bas-hubert-nano"
    assert refusal(load_encoder, name, CPU) == f"encoder {name!r}: no such name; did you mean {meant}?"
