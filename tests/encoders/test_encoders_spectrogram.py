"""w2v-BERT 2.0 and the audio spectrogram transformer: their extractors' input, the states of `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from families import CONFIGS, save
from refusals import refusal
from test_encoders import CPU, encode, near, noise, transformers_itself
from torch.testing import assert_close

from bas.encoders import Encoder, load_encoder, tunable

BERTS = ["w2v-bert", "w2v-bert-rotary"]
LENGTHS = (2_800, 9_001, 16_000, 40_000)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoder]:
    root = tmp_path_factory.mktemp("spectrograms")
    return {name: load_encoder(str(save(root / name, name)), CPU) for name in (*BERTS, "ast")}


def extracted(name: str, wave: np.ndarray, **more: Any) -> Any:
    """What the extractor of `transformers` makes of it."""
    if name in BERTS:
        return transformers.SeamlessM4TFeatureExtractor(**more)(wave, sampling_rate=16_000, return_tensors="pt")
    extractor = transformers.ASTFeatureExtractor(num_mel_bins=40, max_length=256, **more)
    return extractor(wave, sampling_rate=16_000, return_tensors="pt")


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("name", [*BERTS, "ast"])
def test_the_input_is_the_extractors(name: str, samples: int, encoders: dict[str, Encoder]) -> None:
    silence = np.zeros(samples, np.float32)
    silence[: samples // 3] = noise(samples // 3)  # which ends in digital silence: the floor of the energies
    for wave in (noise(samples), 0.2 + 1e-3 * noise(samples, 1), silence):
        prepared = encoders[name].prepare(wave)
        (expected,) = next(iter(extracted(name, wave).values()))
        assert_close(prepared, expected[: len(prepared)], rtol=0, atol=2e-3)
        assert (prepared - expected[: len(prepared)]).abs().mean() < 1e-5


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("name", BERTS)
def test_the_states_of_w2v_bert(name: str, samples: int, encoders: dict[str, Encoder]) -> None:
    states = encode(encoders[name], [noise(samples)])[0]
    given = extracted(name, noise(samples))
    whole = transformers_itself(encoders[name].info.name, given.input_features, attention_mask=given.attention_mask)
    assert states.shape[1] == int(given.attention_mask.sum())  # a mel frame that is left over is no frame
    near(states, whole[0, :, : states.shape[1]])


@pytest.mark.parametrize("samples", LENGTHS)
def test_a_frame_of_ast_is_the_mean_of_the_patches_at_its_time(samples: int, encoders: dict[str, Encoder]) -> None:
    """By the model's own convolution: which of its outputs a patch is, is read off the input that it sees."""
    encoder = encoders["ast"]
    states = encode(encoder, [noise(samples)])[0]
    whole_LND = transformers_itself(encoder.info.name, extracted("ast", noise(samples)).input_values)[0]
    bands, times = (40 - 16) // 10 + 1, (256 - 16) // 10 + 1
    assert whole_LND.shape[1] == 2 + bands * times
    for t in range(states.shape[1]):
        near(states[:, t], whole_LND[:, [2 + band * times + t for band in range(bands)]].mean(1))
    mel_frames = 1 + (samples - 400) // 160
    assert states.shape[1] == (mel_frames - 16) // 10 + 1  # whole patches of the recording alone


def test_a_long_recording_of_ast_has_evenly_spaced_frames(encoders: dict[str, Encoder]) -> None:
    """25 frames a window of 2.56 s; the next begins 250 mel frames later, where frame 25 begins."""
    encoder = encoders["ast"]
    wave = noise(16_000 * 9)
    mel_FM = encoder.prepare(wave)
    short, states, again = encoder.encode([mel_FM[:100], mel_FM, mel_FM[250:506]])
    assert short.shape[1] == 9
    assert states.shape[1] == (len(mel_FM) - 16) // 10 + 1 > 75
    near(states[:, 25:50], again)
    near(states[:, -1:], encoder.encode([mel_FM[750 : 750 + 16 + 10 * (states.shape[1] - 76)]])[0][:, -1:])


def test_what_is_normalised_is_what_the_folder_says(tmp_path: Path) -> None:
    folder = save(tmp_path / "ast", "ast")
    extractor = transformers.ASTFeatureExtractor(num_mel_bins=40, max_length=256, do_normalize=False)
    extractor.save_pretrained(folder)
    wave = noise(16_000)
    prepared = load_encoder(str(folder), CPU).prepare(wave)
    assert_close(
        prepared, extracted("ast", wave, do_normalize=False).input_values[0][: len(prepared)], rtol=0, atol=1e-3
    )


@pytest.mark.parametrize(
    ("name", "extractor", "words"),
    [
        (
            "ast",
            transformers.ASTFeatureExtractor(num_mel_bins=64, max_length=256),
            "(64, 256), which the model refuses",
        ),
        ("w2v-bert", transformers.SeamlessM4TFeatureExtractor(stride=3), "frames 240 wide, the model takes 160"),
        ("w2v-bert", transformers.ASTFeatureExtractor(), "ASTFeatureExtractor, not SeamlessM4TFeatureExtractor"),
    ],
)
def test_another_models_preprocessor(name: str, extractor: Any, words: str, tmp_path: Path) -> None:
    folder = save(tmp_path / name, name)
    extractor.save_pretrained(folder)
    assert words in refusal(load_encoder, str(folder), CPU)


@pytest.mark.parametrize("name", ["w2v-bert", "ast"])
def test_they_are_not_fine_tuned(name: str, encoders: dict[str, Encoder]) -> None:
    kind = CONFIGS[name].model_type
    assert f"{kind} is encoded here, but not fine-tuned" in refusal(tunable, encoders[name])


def test_an_adapter_changes_no_state(tmp_path: Path, encoders: dict[str, Encoder]) -> None:
    """Its frames are fewer; the states are those before it."""
    folder = tmp_path / "adapter"
    torch.manual_seed(0)
    model = transformers.Wav2Vec2BertModel(
        transformers.Wav2Vec2BertConfig(**{**CONFIGS["w2v-bert"].to_diff_dict(), "add_adapter": True})
    )
    model.load_state_dict(
        transformers.AutoModel.from_pretrained(encoders["w2v-bert"].info.name).state_dict(), strict=False
    )
    model.save_pretrained(folder)
    wave = noise(16_000)
    near(encode(load_encoder(str(folder), CPU), [wave])[0], encode(encoders["w2v-bert"], [wave])[0])
