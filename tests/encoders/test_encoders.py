"""Every family with random weights: exact, frozen, blind to whom it shares a batch with and to other threads."""

# mypy: disable-error-code="arg-type,attr-defined"

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from families import CONFIGS, save
from places import PATIENCE
from torch import Tensor
from torch.testing import assert_close

from bas.encoders import LOG_MEL, MODELS, Encoder, load_encoder
from bas.encoders.waveform import WAVEFORM_MODELS

pytestmark = [
    pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask"),  # as the encoder does
    pytest.mark.filterwarnings("ignore:var.*degrees of freedom"),  # of one mel frame, which is too short
]
CPU = torch.device("cpu")
REAL_LENGTH = "whisper, real length"
FAMILIES = [*CONFIGS, REAL_LENGTH, LOG_MEL]
WAVEFORM = [name for name, config in CONFIGS.items() if config.model_type in WAVEFORM_MODELS]
EQUAL_FRAMES = ["hubert-batch", "data2vec-audio", "sew", "sew-d"]


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def encode(encoder: Encoder, waves: Sequence[np.ndarray]) -> list[Tensor]:
    return encoder.encode([encoder.prepare(w) for w in waves])


def near(actual: Any, expected: Any) -> None:
    assert_close(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoder]:
    root = tmp_path_factory.mktemp("encoders")
    loaded = {name: load_encoder(str(save(root / name, name)), CPU) for name in CONFIGS}
    loaded[REAL_LENGTH] = load_encoder(str(root / "whisper"), CPU, real_length=True)
    return {**loaded, LOG_MEL: load_encoder(LOG_MEL, CPU)}


def test_every_family_is_tried() -> None:
    assert {c.model_type for c in CONFIGS.values()} == set(MODELS)


@pytest.mark.parametrize("name", FAMILIES)
def test_info_says_what_comes_out(name: str, encoders: dict[str, Encoder]) -> None:
    encoder = encoders[name]
    states = encode(encoder, [noise(48_000)])[0]
    assert (states.dtype, states.device) == (torch.float32, encoder.device)
    assert states.shape[::2] == (encoder.info.num_states, encoder.info.dim)
    assert states.shape[::2] == ((1, 80) if name == LOG_MEL else (3, 32))
    assert encoder.info.frame_rate == {LOG_MEL: 100, "sew": 25, "sew-d": 25, "ast": 10}.get(name, 50)
    assert states.shape[1] == pytest.approx(3 * encoder.info.frame_rate, abs=2)
    assert encoder.info.sample_rate == 16_000
    assert encoder.info.to_dict()["precision"] == "float32"
    if name == LOG_MEL:
        assert encoder.info.model_type == LOG_MEL
    else:
        assert encoder.info.model_type == CONFIGS[name.split(",")[0]].model_type
        assert encoder.info.revision.startswith("sha256:")


@pytest.mark.parametrize("name", FAMILIES)
def test_min_samples_is_the_shortest_that_gives_a_frame(name: str, encoders: dict[str, Encoder]) -> None:
    encoder = encoders[name]
    assert encode(encoder, [noise(encoder.min_samples)])[0].shape[1] == 1
    if encoder.min_samples > 1:
        with pytest.raises((RuntimeError, ValueError)):
            encode(encoder, [noise(encoder.min_samples - 1)])


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_wave_costs_and_how_long_it_may_be(name: str, encoders: dict[str, Encoder]) -> None:
    encoder = encoders[name]
    costs = [encoder.cost(n) for n in (1_000, 480_000, 480_001)]
    windows = {"whisper": [480_000, 480_000, 960_000], "ast": [40_000, 480_000, 520_000]}
    assert costs == windows.get(name, [1_000, 480_000, 480_001])


def mates(name: str, encoder: Encoder) -> list[np.ndarray]:
    """Waves that may share a batch: very short and long ones, loud and soft, unless the family wants equal frames."""
    lengths = [encoder.min_samples, 9_001, 40_000, 16_000, encoder.min_samples + 319, 9_001]
    if name in EQUAL_FRAMES:
        lengths = [9_001, 9_010, 9_020, 9_001]
    assert len({encoder.batch_key(n) for n in lengths}) == 1
    return [noise(n, seed) * 3.0**seed for seed, n in enumerate(lengths)]


@pytest.mark.parametrize("name", FAMILIES)
def test_features_do_not_depend_on_the_batch(name: str, encoders: dict[str, Encoder]) -> None:
    encoder = encoders[name]
    waves = mates(name, encoder)
    alone = [encode(encoder, [w])[0] for w in waves]
    indices = list(range(len(waves)))
    for order in [indices, indices[::-1], indices[1:] + indices[:1], indices[1:3], [0, 2], [2, 0]]:
        for i, states in zip(order, encode(encoder, [waves[i] for i in order]), strict=True):
            near(states, alone[i])
    short, long = alone[1], alone[2]
    few = min(10, short.shape[1])
    assert not torch.allclose(short[:, :few], long[:, :few], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", EQUAL_FRAMES)
def test_where_padding_would_leak_only_equal_frames_share_a_batch(
    name: str, encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoders[name]
    lengths = (16_000, 40_000)  # 49 frames: an odd number, which SEW's pairs do not divide
    waves = [noise(n, seed) for seed, n in enumerate(lengths)]
    assert len({encoder.batch_key(n) for n in (15_759, 15_760, 16_079, 16_080)}) == 3
    assert encoder.batch_key(15_760) == encoder.batch_key(16_079)
    with pytest.raises(AssertionError, match="batch key"):
        encode(encoder, waves)
    alone = encode(encoder, waves[:1])[0]
    monkeypatch.setattr(encoder, "_pads", True)
    padded = encode(encoder, waves)[0][:, : alone.shape[1]]
    assert (padded - alone).abs().max() > 1e-3


def transformers_itself(folder: str, input_values: Any, **more: Any) -> Tensor:
    """The states `(B, L, T, D)` of the whole model."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return torch.stack(model(input_values, output_hidden_states=True, **more).hidden_states, dim=1)


@pytest.mark.parametrize("name", WAVEFORM)
def test_the_states_are_those_of_the_whole_model(name: str, encoders: dict[str, Encoder]) -> None:
    encoder = encoders[name]
    extractor = transformers.Wav2Vec2FeatureExtractor()
    for wave, states in zip(mates(name, encoder)[:3], encode(encoder, mates(name, encoder))[:3], strict=True):
        inputs = extractor(wave, sampling_rate=16_000, return_tensors="pt")
        near(states, transformers_itself(encoder.info.name, inputs.input_values)[0])


def test_careless_padding_would_change_features(encoders: dict[str, Encoder]) -> None:
    """Why the front runs on each wave alone: a GroupNorm takes its statistics over the padding too."""
    encoder = encoders["wav2vec2-group"]
    short = noise(8_000)
    alone = encode(encoder, [short])[0]
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    padded = extractor([short, noise(32_000, 1)], sampling_rate=16_000, padding=True, return_tensors="pt")
    careless = transformers_itself(encoder.info.name, **padded)[0, :, : alone.shape[1]]
    assert (careless - alone)[:, :10].abs().max() > 0.05


@pytest.mark.parametrize("normalise", [True, False])
def test_prepare_is_the_extractor_of_the_folder(normalise: bool, tmp_path: Path) -> None:
    folder = save(tmp_path / "wavlm", "wavlm-group")
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalise)
    extractor.save_pretrained(folder)
    encoder = load_encoder(str(folder), CPU)
    assert encoder.info.input == ("zero mean, unit variance" if normalise else "as recorded")
    for wave in (noise(8_001) + 0.2, np.zeros(400, np.float32)):
        expected = extractor(wave, sampling_rate=16_000, return_tensors="pt").input_values[0]
        assert_close(encoder.prepare(wave), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_frozen(name: str, encoders: dict[str, Encoder]) -> None:
    encoder = encoders[name]
    wave = noise(8_000)
    first, second = encode(encoder, [wave])[0], encode(encoder, [wave])[0]
    assert torch.equal(first, second)
    assert not first.requires_grad
    for model in (getattr(encoder, part) for part in ("_model", "_front") if hasattr(encoder, part)):
        assert not any(module.training for module in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
        assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_threads_do_not_disturb_each_other(name: str, encoders: dict[str, Encoder]) -> None:
    encoder = encoders[name]
    waves = mates(name, encoder)
    batches = [waves[:3], waves[::-1], waves[2:4], waves[:1]]
    serial = [encode(encoder, batch) for batch in batches]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in range(3):
                together = pool.map(encode, [encoder] * 4, batches, timeout=PATIENCE)
                for one, other in zip(together, serial, strict=True):
                    near(one, other)
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("name", [n for n in FAMILIES if n != LOG_MEL])
def test_bfloat16_is_near_float32(name: str, encoders: dict[str, Encoder]) -> None:
    exact = encoders[name]
    encoder = load_encoder(exact.info.name, CPU, precision="bfloat16", real_length=name == REAL_LENGTH)
    assert encoder.info.to_dict() == {**exact.info.to_dict(), "precision": "bfloat16"}
    waves = mates(name, encoder)[1:]
    for rough, fine in zip(encode(encoder, waves), encode(exact, waves), strict=True):
        assert rough.dtype == torch.bfloat16
        # Eight bits of mantissa: 0.4 % an operation, a few per cent of a state's norm through a whole model.
        for layer, (r, f) in enumerate(zip(rough.float(), fine, strict=True)):
            assert (r - f).norm() < 0.05 * f.norm(), layer


@pytest.mark.parametrize("name", ["wav2vec2-group", "wav2vec2-layer", "hubert-group", "wavlm-layer"])
def test_state_0_enters_the_first_layer_and_the_others_leave_one_each(name: str, encoders: dict[str, Encoder]) -> None:
    encoder = encoders[name]
    seen: list[torch.Tensor] = []

    def look(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        seen.extend([args[0] if args else kwargs["hidden_states"], output[0] if isinstance(output, tuple) else output])

    hooks = [layer.register_forward_hook(look, with_kwargs=True) for layer in encoder._model.encoder.layers]
    states = encode(encoder, [noise(8_000)])[0]
    for hook in hooks:
        hook.remove()
    for state, value in zip(states, [seen[0], seen[1], seen[3]], strict=True):
        near(state[None], value)


def test_log_mel_follows_the_tone() -> None:
    encoder = load_encoder("log-mel", CPU)
    low, high = (np.sin(2 * np.pi * f * np.arange(16_000) / 16_000).astype(np.float32) for f in (300, 3_000))
    peaks = [int(states[0].mean(0).argmax()) for states in encode(encoder, [low, high])]
    assert peaks[0] < peaks[1]
    near(encode(encoder, [np.zeros(400, np.float32)])[0], torch.full((1, 3, 80), np.log(1e-6)))  # natural, and finite
