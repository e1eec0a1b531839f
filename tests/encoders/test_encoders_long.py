"""What is longer than a model attends to at once goes in pieces, and has as many frames as in one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import CONFIGS, save
from hypothesis import given, settings
from hypothesis import strategies as st
from test_encoders import CPU, WAVEFORM, encode, near, noise

import bas.encoders.spectrogram
import bas.encoders.waveform
from bas.encoders import Encoder, load_encoder
from bas.encoders.base import LONGEST, frames_fault, pieces
from bas.encoders.waveform import Waveform

NAMES = [*WAVEFORM, "w2v-bert"]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoder]:
    root = tmp_path_factory.mktemp("long")
    return {name: load_encoder(str(save(root / name, name)), CPU) for name in NAMES}


@pytest.fixture
def short_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """One second, so that not every test takes minutes."""
    for module in (bas.encoders.waveform, bas.encoders.spectrogram):
        monkeypatch.setattr(module, "LONGEST", 16_000)


@given(st.integers(1, 10_000), st.integers(1, 500))
@settings(max_examples=200, deadline=None)
def test_pieces_are_the_fewest_and_of_one_length(length: int, longest: int) -> None:
    cut = pieces(length, longest)
    assert [a for a, _ in cut[1:]] == [b for _, b in cut[:-1]]
    assert (cut[0][0], cut[-1][1]) == (0, length)
    assert len(cut) == -(-length // longest)
    sizes = {b - a for a, b in cut}
    assert max(sizes) <= longest
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("samples", [16_399, 40_000, 57_119])
@pytest.mark.usefixtures("short_attention")
def test_as_many_frames_as_in_one_piece(
    name: str, samples: int, encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, wave = encoders[name], noise(samples)
    in_pieces = encode(encoder, [wave])[0]
    for module in (bas.encoders.waveform, bas.encoders.spectrogram):
        monkeypatch.setattr(module, "LONGEST", LONGEST)
    whole = encode(encoder, [wave])[0]
    assert in_pieces.shape == whole.shape
    assert not frames_fault(whole.shape[1], samples, encoder.info.frame_rate)
    if samples > 16_400:  # and are another thing: nothing attends over the cut
        assert (in_pieces - whole).abs().max() > 1e-3


@pytest.mark.parametrize("name", WAVEFORM)
@pytest.mark.usefixtures("short_attention")
def test_a_piece_is_encoded_as_if_it_were_all(name: str, encoders: dict[str, Encoder]) -> None:
    """And so is a short wave beside a long one."""
    encoder = encoders[name]
    assert isinstance(encoder, Waveform)
    prepared = encoder.prepare(noise(40_000))
    states, short = encoder.encode([prepared, encoder.prepare(noise(9_000, 1))])
    near(short, encode(encoder, [noise(9_000, 1)])[0])
    cut = encoder._pieces(prepared)
    assert len(cut) == 3
    near(states, torch.cat([encoder.encode([piece])[0] for piece in cut], 1))


@pytest.mark.parametrize("name", [n for n in WAVEFORM if n.endswith("-layer") or n == "data2vec-audio"])
@pytest.mark.usefixtures("short_attention")
def test_the_frames_before_the_first_layer_are_those_of_the_whole(name: str, encoders: dict[str, Encoder]) -> None:
    """Each convolution sees a few samples, and no statistics of the rest, so a wrong cut by one sample would show."""
    encoder = encoders[name]
    assert isinstance(encoder, Waveform)
    prepared = encoder.prepare(noise(40_000))
    with torch.no_grad():
        whole = encoder._front(prepared[None])[0]
        cut = torch.cat([encoder._front(piece[None])[0] for piece in encoder._pieces(prepared)], 1)
    near(cut, whole)


def test_w2v_bert_in_pieces(encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands are standardised over the whole recording, then it is cut."""
    monkeypatch.setattr(bas.encoders.spectrogram, "LONGEST", 16_000)
    encoder = encoders["w2v-bert"]
    x_TM = encoder.prepare(noise(40_000))
    near(encoder.encode([x_TM])[0], torch.cat([encoder.encode([x_TM[a:b]])[0] for a, b in pieces(len(x_TM), 50)], 1))


@pytest.mark.slow
def test_five_minutes(tmp_path: Path) -> None:
    """With the real limit, which three pieces of 100 s keep."""
    assert "wav2vec2-layer" in CONFIGS
    encoder = load_encoder(str(save(tmp_path / "model", "wav2vec2-layer")), CPU)
    states = encode(encoder, [noise(300 * 16_000)])[0]
    assert states.shape[1] == (300 * 16_000 - 400) // 320 + 1
    assert states.isfinite().all()
