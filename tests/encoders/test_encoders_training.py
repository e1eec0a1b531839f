"""Encoders in training: what has a gradient, what the model's own configuration drops, and what is saved and loaded."""

# mypy: disable-error-code="misc,untyped-decorator"

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import configured, save, still
from refusals import refusal
from test_encoders import CPU, encode, mates, near, noise
from test_encoders_whisper import REAL, with_real
from torch.testing import assert_close

from bas.encoders import LOG_MEL, Tunable, load_encoder, tunable
from bas.encoders.base import spans

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
WAVEFORM = [
    *(f"{family}-{norm}" for family in ("wav2vec2", "hubert", "wavlm") for norm in ("group", "layer")),
    *("unispeech-layer", "unispeech-sat-group", "data2vec-audio"),
]
REAL_LENGTH = "whisper, real length"
FAMILIES = [*WAVEFORM, "whisper", REAL_LENGTH]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name in (*WAVEFORM, "whisper"):
        save(root / name, name)
    return root


def load(root: Path, name: str) -> Tunable:
    return tunable(load_encoder(str(root / name.split(",")[0]), CPU, real_length=name == REAL_LENGTH))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_output_is_the_last_state_cut_for_any_batch(name: str, folders: Path) -> None:
    encoder = load(folders, name)
    inputs = [encoder.prepare(wave) for wave in mates(name, encoder) if name != "data2vec-audio" or len(wave) == 9_001]
    outputs = encoder.outputs(inputs)
    for input_, output_TD in zip(inputs, outputs, strict=True):
        states_LTD = encoder.encode([input_])[0]
        near(output_TD, encoder.cut(states_LTD)[-1])
        normed = name.endswith("-layer") or "whisper" in name
        assert torch.equal(encoder.cut(states_LTD)[0], states_LTD[0]) is not normed
    assert not any(output_TD.requires_grad for output_TD in outputs)


@pytest.mark.parametrize("name", FAMILIES)
def test_all_but_the_front_learns(name: str, folders: Path) -> None:
    encoder: Any = load(folders, name)
    encoder.trunk.requires_grad_(True)
    torch.cat(encoder.outputs([encoder.prepare(noise(9_000))])).square().sum().backward()
    unused = ["masked_spec_embed"] if name in WAVEFORM else []
    without = [n for n, p in encoder.trunk.named_parameters() if p.grad is None]
    assert without == unused
    front = encoder._front if name in WAVEFORM else torch.nn.ModuleList([encoder._model.conv1, encoder._model.conv2])
    assert all(not p.requires_grad and p.grad is None for p in front.parameters())
    if name not in WAVEFORM:
        assert not encoder._model.embed_positions.weight.requires_grad


@pytest.mark.parametrize("name", FAMILIES)
def test_training_drops_what_the_configuration_says(name: str, folders: Path, tmp_path: Path) -> None:
    encoder = load(folders, name)
    if name in WAVEFORM:  # Whisper's own configurations drop nothing; another's is tried below
        inputs = [encoder.prepare(noise(9_000))]
        encoder.trunk.train()
        torch.manual_seed(0)
        one, again = (encoder.outputs(inputs)[0] for _ in range(2))
        assert not torch.allclose(one, again)
        torch.manual_seed(0)
        assert torch.equal(encoder.outputs(inputs)[0], one)
    quiet = load(still(save(tmp_path / name.split(",")[0], name.split(",")[0])).parent, name)
    inputs = [quiet.prepare(noise(9_000))]
    expected = quiet.outputs(inputs)[0]
    quiet.trunk.train()
    assert torch.equal(quiet.outputs(inputs)[0], expected)


@pytest.mark.parametrize("name", ["hubert-group", "wavlm-layer"])
def test_masked_spans_lie_in_a_wave_of_its_own(name: str, tmp_path: Path) -> None:
    """Also in waves shorter than a span; and what is masked does not depend on the padding."""
    folder = configured(still(save(tmp_path / name, name)), apply_spec_augment=True, mask_time_prob=0.5)
    encoder: Any = tunable(load_encoder(str(folder), CPU))
    short, long = (encoder.prepare(noise(n)) for n in (1_200, 16_000))  # 3 and 49 frames
    plain_TD = encoder.outputs([short])[0]
    encoder.trunk.train()
    torch.manual_seed(1)
    assert_close(encoder.outputs([short])[0], plain_TD)
    torch.manual_seed(1)
    alone_TD = encoder.outputs([long])[0]
    torch.manual_seed(1)
    padded_TD = encoder.outputs([long, short])[0]
    near(padded_TD, alone_TD)
    encoder.trunk.eval()
    assert not torch.allclose(encoder.outputs([long])[0], alone_TD, atol=1e-3)


def test_spans() -> None:
    torch.manual_seed(0)
    assert not spans(9, 0.5, 10, 2).any()
    assert not spans(50, 0.0, 10, 0).any()
    drawn = [spans(100, 0.3, 10, 0) for _ in range(400)]
    assert {int(mask.sum()) for mask in drawn} <= set(range(10, 41))
    assert 0.2 < float(torch.stack(drawn).float().mean()) < 0.3  # spans overlap
    assert min(int(spans(100, 0.0, 10, 2).sum()) for _ in range(50)) > 10


@pytest.mark.parametrize("changes", [{"dropout": 0.3}, {"encoder_layerdrop": 0.7}, {"apply_spec_augment": True}])
def test_a_whisper_that_drops(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = configured(still(save(tmp_path / "whisper", "whisper")), **changes, mask_time_prob=0.5)
    encoder = load(folder.parent, REAL_LENGTH)
    assert not encoder.trunk.training, "frozen at first"
    inputs = [encoder.prepare(noise(16_000)), encoder.prepare(noise(600_000))]
    plain = encoder.outputs(inputs)
    assert torch.equal(encoder.outputs(inputs)[0], plain[0])
    encoder.trunk.train()
    torch.manual_seed(0)
    for x_TD, plain_TD in zip(encoder.outputs(inputs), plain, strict=True):
        assert x_TD.shape == plain_TD.shape
        assert not torch.allclose(x_TD, plain_TD, atol=1e-3)


@pytest.mark.parametrize("name", ["hubert-group", "whisper"])
def test_every_layer_may_be_dropped(name: str, tmp_path: Path) -> None:
    still(save(tmp_path / name, name))
    encoder = load(configured(tmp_path / name, layerdrop=1.0, encoder_layerdrop=1.0).parent, name)
    inputs = [encoder.prepare(noise(9_000))]
    first_TD = encoder.encode(inputs)[0][0]
    encoder.trunk.train()
    near(encoder.outputs(inputs)[0], encoder.cut(torch.stack([first_TD, first_TD]))[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_saved_is_loaded_bit_by_bit(name: str, folders: Path, tmp_path: Path) -> None:
    encoder = load(folders, name)
    waves = [noise(9_000), noise(9_001)]
    before = encode(encoder, waves)
    with torch.no_grad():
        for parameter in encoder.trunk.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    encoder.save(tmp_path / name.split(",")[0])
    loaded = load(tmp_path, name)
    for own, theirs, old in zip(encode(encoder, waves), encode(loaded, waves), before, strict=True):
        assert torch.equal(own, theirs)
        assert not torch.allclose(theirs, old, atol=1e-3)
    assert loaded.info.input == encoder.info.input
    there = {p.name for p in (tmp_path / name.split(",")[0]).iterdir()}
    assert there == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert [p.name for p in tmp_path.iterdir()] == [name.split(",")[0]]  # nothing temporary is left


@with_real
def test_the_real_whisper_is_saved_and_loaded(tmp_path: Path) -> None:
    encoder = tunable(load_encoder(str(REAL), CPU, real_length=True))
    encoder.save(tmp_path / "saved")
    loaded = load_encoder(str(tmp_path / "saved"), CPU, real_length=True)
    assert torch.equal(encode(encoder, [noise(9_000)])[0], encode(loaded, [noise(9_000)])[0])


def test_encoders_that_are_not_trained_here(tmp_path: Path) -> None:
    assert "no weights to train" in refusal(tunable, load_encoder(LOG_MEL, CPU))
    for name, message in (("sew", "sew puts out other frames"), ("hubert-batch", "BatchNorm")):
        assert message in refusal(tunable, load_encoder(str(save(tmp_path / name, name)), CPU))


@pytest.mark.parametrize("name", ["wav2vec2-group", "wav2vec2-layer", "wavlm-group", "wavlm-layer", "data2vec-audio"])
def test_an_adapter_is_not_fine_tuned_and_changes_no_state(name: str, folders: Path, tmp_path: Path) -> None:
    """It convolves over padding, and puts out an eighth of the frames that the states have."""
    plain = load_encoder(str(folders / name), CPU)
    folder = tmp_path / name
    config = transformers.AutoConfig.from_pretrained(folders / name)
    config.add_adapter, config.output_hidden_size = True, config.hidden_size
    model = transformers.AutoModel.from_config(config)
    model.load_state_dict(transformers.AutoModel.from_pretrained(folders / name).state_dict(), strict=False)
    model.save_pretrained(folder)
    encoder = load_encoder(str(folder), CPU)
    waves = mates(name, encoder)
    together = encode(encoder, waves)
    for wave, states_LTD in zip(waves, together, strict=True):
        near(states_LTD, encode(plain, [wave])[0])
    message = refusal(tunable, encoder)
    assert str(folder) in message
    assert "adapter (add_adapter)" in message


@pytest.mark.parametrize("name", ["hubert-group", "unispeech-layer", "unispeech-sat-group"])
def test_a_family_without_an_adapter_only_has_the_word_for_it(name: str, folders: Path, tmp_path: Path) -> None:
    folder = configured(save(tmp_path / name, name), add_adapter=True, num_adapter_layers=2, output_hidden_size=32)
    encoder, plain = (tunable(load_encoder(str(f), CPU)) for f in (folder, folders / name))
    inputs = [encoder.prepare(wave) for wave in mates(name, encoder)]
    for input_, output_TD in zip(inputs, encoder.outputs(inputs), strict=True):
        near(output_TD, encoder.outputs([input_])[0])
        near(output_TD, plain.outputs([input_])[0])
