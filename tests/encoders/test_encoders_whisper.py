"""Whisper: the mel of its extractor, the states of its encoder, windows of 30 s, and the recording's own length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from families import save
from places import SHARED
from test_encoders import CPU, encode, near, noise
from torch import Tensor
from torch.testing import assert_close

from bas.encoders import Encoder, load_encoder
from bas.encoders.whisper import WINDOWS

REAL = SHARED / "models/whisper-tiny-en"
with_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no Whisper weights at {REAL}")
MODES = pytest.mark.parametrize("whisper", ["exact", "real length"], indirect=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("whisper"), "whisper")


@pytest.fixture
def whisper(folder: Path, request: pytest.FixtureRequest) -> Encoder:
    return load_encoder(str(folder), CPU, real_length=getattr(request, "param", "exact") == "real length")


def seen_by_the_model(encoder: Any, waves: list[np.ndarray]) -> list[Tensor]:
    """The mels `(B, M, F)` that go into the first convolution, one a call."""
    seen: list[Tensor] = []
    hook = encoder._model.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encode(encoder, waves)
    hook.remove()
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 160, 320, 321, 8_000, 16_000, 479_599, 479_801, 479_999, 480_000])
def test_the_model_sees_what_the_extractor_makes(samples: int, whisper: Encoder) -> None:
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    ramp = np.linspace(0, 1, samples, dtype=np.float32)  # loudest where it breaks off
    for wave in (noise(samples), ramp * noise(samples, 1), np.zeros(samples, np.float32)):
        expected = extractor(wave, sampling_rate=16_000, return_tensors="pt").input_features
        (mel_BMF,) = seen_by_the_model(whisper, [wave])
        assert_close(mel_BMF, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("whisper", ["real length"], indirect=True)
def test_the_real_length_is_all_the_model_sees(whisper: Encoder) -> None:
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    for samples, frames in [(1, 1), (160, 1), (161, 2), (16_001, 101), (480_000, 3_000)]:
        expected = extractor(noise(samples), sampling_rate=16_000, return_tensors="pt").input_features
        (mel_BMF,) = seen_by_the_model(whisper, [noise(samples)])
        assert_close(mel_BMF, expected[..., :frames], rtol=0, atol=1e-5)


@MODES
@pytest.mark.parametrize("samples", [1, 320, 321, 16_000, 16_001, 479_999, 480_000, 480_001, 485_000])
def test_the_real_frames_are_kept(samples: int, whisper: Encoder) -> None:
    states = encode(whisper, [noise(samples)])[0]
    assert states.shape[1] == -(-samples // 320)
    assert states.isfinite().all()


@MODES
def test_long_recordings_go_in_windows(whisper: Encoder) -> None:
    wave = noise(485_000)
    states = encode(whisper, [noise(3_000, 1), wave, noise(20_000, 2)])[1]
    assert states.shape[1] == -(-485_000 // 320)
    near(states[:, :1500], encode(whisper, [wave[:480_000]])[0])
    near(states[:, 1500:], encode(whisper, [wave[480_000:]])[0])


@MODES
def test_an_hour_goes_a_few_windows_at_a_time(whisper: Encoder) -> None:
    """Memory: the model never sees all windows at once, and what comes out holds real frames and nothing more."""
    waves = [noise(480_000 * (WINDOWS + 1) + 1), noise(1_000)]
    batches = [len(mel_BMF) for mel_BMF in seen_by_the_model(whisper, waves)]
    assert max(batches) <= WINDOWS <= 16
    assert sum(batches) == WINDOWS + 3
    for states in encode(whisper, waves[1:] * 2):
        assert states.shape[1] == 4
        assert states.untyped_storage().nbytes() == states.nbytes


def whisper_itself(folder: str | Path, wave: np.ndarray) -> Tensor:
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    model = transformers.WhisperModel.from_pretrained(folder, dtype=torch.float32).encoder.eval()
    with torch.inference_mode():
        mel = extractor(wave, sampling_rate=16_000, return_tensors="pt").input_features
        states = model(mel, output_hidden_states=True).hidden_states
    return torch.stack([s[0, : -(-len(wave) // 320)] for s in states])


def test_the_states_are_those_of_transformers(whisper: Encoder) -> None:
    near(encode(whisper, [noise(20_000)])[0], whisper_itself(whisper.info.name, noise(20_000)))


@MODES
def test_at_30_seconds_both_forms_are_those_of_transformers(whisper: Encoder) -> None:
    near(encode(whisper, [noise(480_000)])[0], whisper_itself(whisper.info.name, noise(480_000)))


def test_the_real_length_is_another_feature(folder: Path) -> None:
    exact, real = (encode(load_encoder(str(folder), CPU, real_length=r), [noise(20_000)])[0] for r in (False, True))
    near(real[0, :-1], exact[0, :-1])  # before the first layer only the last frame could see the silence
    assert (real[1] - exact[1]).abs().max() > 1e-3


@with_real
def test_the_real_whisper_is_the_encoder_of_transformers() -> None:
    encoder = load_encoder(str(REAL), CPU)
    states = encode(encoder, [noise(20_000)])[0]
    assert (encoder.info.num_states, encoder.info.dim, states.shape) == (5, 384, (5, 63, 384))
    near(states, whisper_itself(REAL, noise(20_000)))


@with_real
@pytest.mark.parametrize("real_length", [False, True])
def test_the_real_whisper_does_not_notice_its_batch(real_length: bool) -> None:
    encoder = load_encoder(str(REAL), CPU, real_length=real_length)
    waves = [noise(samples, samples) for samples in (70_000, 31_999)]
    for wave, states in zip(waves, encode(encoder, waves), strict=True):
        near(states, encode(encoder, [wave])[0])


@with_real
def test_the_real_whisper_at_its_real_length_for_30_seconds() -> None:
    exact, real = (encode(load_encoder(str(REAL), CPU, real_length=r), [noise(480_000)])[0] for r in (False, True))
    near(real, exact)


@with_real
def test_the_real_whisper_in_bfloat16() -> None:
    fine, rough = (
        encode(load_encoder(str(REAL), CPU, precision=p), [noise(20_000)])[0] for p in ("float32", "bfloat16")
    )
    for layer, (f, r) in enumerate(zip(fine, rough.float(), strict=True)):
        assert (f - r).norm() < 0.05 * f.norm(), layer
