"""Every family with random weights: exact, frozen, blind to whom it shares a batch with; and refusals in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import SMALL, refusal
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from bas.encoders import WAVEFORM_MODELS, Encoder, load_encoder

CPU = torch.device("cpu")
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
SEW = {**SMALL, "conv_dim": (16,) * 13}
WHISPER = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "vocab_size": 64,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}
CONFIGS: dict[str, transformers.PretrainedConfig] = {
    "wav2vec2-group": transformers.Wav2Vec2Config(**SMALL),
    "wav2vec2-layer": transformers.Wav2Vec2Config(**SMALL, **LAYER),
    "hubert-group": transformers.HubertConfig(**SMALL),
    "hubert-layer": transformers.HubertConfig(**SMALL, **LAYER),
    "wavlm-group": transformers.WavLMConfig(**SMALL),
    "wavlm-layer": transformers.WavLMConfig(**SMALL, **LAYER),
    "unispeech": transformers.UniSpeechConfig(**SMALL),
    "unispeech-sat": transformers.UniSpeechSatConfig(**SMALL),
    "data2vec-audio": transformers.Data2VecAudioConfig(**{**SMALL, "num_conv_pos_embeddings": 2}),
    "sew": transformers.SEWConfig(**SEW),
    "sew-d": transformers.SEWDConfig(**SEW),
    "whisper": transformers.WhisperConfig(**WHISPER),
}
FAMILIES = [*CONFIGS, "log-mel"]
REAL = Path(__file__).parents[2] / "shared/models/whisper-tiny-en"


def save(folder: Path, name: str, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    transformers.AutoModel.from_config(CONFIGS[name]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoder]:
    root = tmp_path_factory.mktemp("encoders")
    names = {name: str(save(root / name, name)) for name in CONFIGS} | {"log-mel": "log-mel"}
    return {name: load_encoder(where, CPU) for name, where in names.items()}


@pytest.fixture
def wavlm(tmp_path: Path) -> Path:
    return save(tmp_path / "wavlm", "wavlm-group")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def near(actual: Any, expected: Any) -> None:
    assert_close(actual, expected, rtol=1e-3, atol=1e-4)


def test_every_family_is_tried() -> None:
    assert {c.model_type for c in CONFIGS.values()} == {"whisper", *WAVEFORM_MODELS}


@pytest.mark.parametrize("name", FAMILIES)
def test_info_says_what_comes_out(name: str, encoders: dict[str, Encoder]) -> None:
    encoder = encoders[name]
    states = encoder.encode([noise(48_000)])[0]
    assert states.dtype == torch.float32
    assert states.shape[::2] == (encoder.info.num_states, encoder.info.dim)
    assert states.shape[::2] == ((1, 80) if name == "log-mel" else (3, 32))
    assert encoder.info.frame_rate == {"log-mel": 100, "sew": 25, "sew-d": 25}.get(name, 50)
    assert states.shape[1] == pytest.approx(3 * encoder.info.frame_rate, abs=2)
    assert encoder.info.sample_rate == 16_000
    assert encoder.info.model_type == (name if name in ("log-mel",) else CONFIGS[name].model_type)
    assert name == "log-mel" or encoder.info.revision.startswith("sha256:")


@pytest.mark.parametrize("name", FAMILIES)
def test_min_samples_is_the_shortest_that_gives_a_frame(name: str, encoders: dict[str, Encoder]) -> None:
    encoder = encoders[name]
    assert encoder.encode([noise(encoder.min_samples)])[0].shape[1] == 1
    if encoder.min_samples > 1:
        with pytest.raises(RuntimeError):
            encoder.encode([noise(encoder.min_samples - 1)])


@pytest.mark.parametrize("name", FAMILIES)
def test_features_do_not_depend_on_the_batch(name: str, encoders: dict[str, Encoder]) -> None:
    encoder = encoders[name]
    lengths = (4_000, 16_000, 9_001) if name == "whisper" else (9_001,) * 3
    assert len({encoder.batch_key(n) for n in lengths}) == 1
    waves = [noise(n, seed) * 3**seed for seed, n in enumerate(lengths)]
    alone = [encoder.encode([w])[0] for w in waves]
    for order in [(0, 1, 2), (2, 0, 1)]:
        for i, states in zip(order, encoder.encode([waves[i] for i in order]), strict=True):
            near(states, alone[i])
    assert not torch.allclose(alone[0][:, :10], alone[1][:, :10], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "whisper"])
def test_different_lengths_never_share_a_batch(name: str, encoders: dict[str, Encoder]) -> None:
    assert len({encoders[name].batch_key(n) for n in (9_000, 9_001, 16_000)}) == 3


@pytest.mark.parametrize("name", FAMILIES)
def test_frozen(name: str, encoders: dict[str, Encoder]) -> None:
    encoder = encoders[name]
    wave = noise(8_000)
    first, second = encoder.encode([wave])[0], encoder.encode([wave])[0]
    assert torch.equal(first, second)
    assert not first.requires_grad
    if name != "log-mel":
        model = encoder._model
        assert not any(module.training for module in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
        assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["wav2vec2-group", "wav2vec2-layer", "hubert-group", "wavlm-layer"])
def test_state_0_enters_the_first_layer_and_the_others_leave_one_each(name: str, encoders: dict[str, Encoder]) -> None:
    encoder = encoders[name]
    seen: list[torch.Tensor] = []

    def look(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        seen.extend([args[0] if args else kwargs["hidden_states"], output[0] if isinstance(output, tuple) else output])

    hooks = [layer.register_forward_hook(look, with_kwargs=True) for layer in encoder._model.encoder.layers]
    states = encoder.encode([noise(8_000)])[0]
    for hook in hooks:
        hook.remove()
    for state, value in zip(states, [seen[0], seen[1], seen[3]], strict=True):
        near(state[None], value)


def test_careless_padding_would_change_features(encoders: dict[str, Encoder]) -> None:
    """Why lengths are not mixed: a GroupNorm front takes its statistics over the padding too."""
    encoder = encoders["wav2vec2-group"]
    short = noise(8_000)
    alone = encoder.encode([short])[0]
    padded = encoder._extractor([short, noise(32_000, 1)], sampling_rate=16_000, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = encoder._model(padded.input_values, output_hidden_states=True).hidden_states
    careless = torch.stack([s[0, : alone.shape[1]] for s in states])
    assert (careless - alone)[:, :10].abs().max() > 0.05


@pytest.mark.parametrize("samples", [1, 320, 321, 16_000, 16_001, 480_000])
def test_whisper_keeps_the_real_frames(samples: int, encoders: dict[str, Encoder]) -> None:
    assert encoders["whisper"].encode([noise(samples)])[0].shape[1] == -(-samples // 320)


def test_whisper_takes_long_recordings_in_windows(encoders: dict[str, Encoder]) -> None:
    encoder = encoders["whisper"]
    wave = noise(485_000)
    states = encoder.encode([wave])[0]
    assert states.shape[1] == -(-485_000 // 320)
    near(states[:, :1500], encoder.encode([wave[:480_000]])[0])
    near(states[:, 1500:], encoder.encode([wave[480_000:]])[0])
    assert encoder.batch_key(485_000) not in (encoder.batch_key(480_000), encoder.batch_key(16_000))


def whisper_itself(folder: str | Path, wave: np.ndarray) -> torch.Tensor:
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    model = transformers.WhisperModel.from_pretrained(folder, dtype=torch.float32).encoder.eval()
    with torch.inference_mode():
        mel = extractor(wave, sampling_rate=16_000, return_tensors="pt").input_features
        states = model(mel, output_hidden_states=True).hidden_states
    return torch.stack([s[0, : -(-len(wave) // 320)] for s in states])


def test_whisper_is_the_encoder_of_transformers(encoders: dict[str, Encoder]) -> None:
    encoder = encoders["whisper"]
    near(encoder.encode([noise(20_000)])[0], whisper_itself(encoder.info.name, noise(20_000)))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no Whisper weights at {REAL}")
def test_the_real_whisper_is_the_encoder_of_transformers() -> None:
    encoder = load_encoder(str(REAL), CPU)
    states = encoder.encode([noise(20_000)])[0]
    assert (encoder.info.num_states, encoder.info.dim, states.shape) == (5, 384, (5, 63, 384))
    near(states, whisper_itself(REAL, noise(20_000)))


def test_log_mel_follows_the_tone() -> None:
    encoder = load_encoder("log-mel", CPU)
    low, high = (np.sin(2 * np.pi * f * np.arange(16_000) / 16_000).astype(np.float32) for f in (300, 3_000))
    peaks = [int(states[0].mean(0).argmax()) for states in encoder.encode([low, high])]
    assert peaks[0] < peaks[1]
    assert torch.isfinite(encoder.encode([np.zeros(400, np.float32)])[0]).all()


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
    near(normal.encode([scaled])[0], normal.encode([wave])[0])
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(wavlm)
    plain = load_encoder(str(wavlm), CPU)
    assert plain.info.input == "as recorded"
    assert not torch.allclose(plain.encode([scaled])[0], plain.encode([wave])[0], rtol=1e-3, atol=1e-4)


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
    near(old_encoder.encode([noise(8_000)])[0], new.encode([noise(8_000)])[0])


@pytest.mark.parametrize("name", ["no/such-model", "such", "no such model", "./no/such/folder", ""])
def test_an_unknown_name(name: str) -> None:
    assert refusal(load_encoder, name, CPU).startswith(f"encoder {name!r}: not log-mel, no model folder")


def test_a_text_model_is_refused_with_what_is_allowed(tmp_path: Path) -> None:
    transformers.BertConfig(hidden_size=32).save_pretrained(tmp_path)
    message = refusal(load_encoder, str(tmp_path), CPU)
    assert "'bert'" in message
    assert [n for n in ("whisper", "log-mel", *WAVEFORM_MODELS) if n not in message] == []


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
