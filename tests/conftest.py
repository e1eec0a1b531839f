"""What several test modules share: recordings written on the spot, and the one line of a refusal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test may ask the network

import numpy as np
import pytest
import soundfile

from bas.corpora import Corpus, Utterance
from bas.encoders.base import TORCHAUDIO_FAULT
from bas.errors import UserError

# Pairs of equal length: some utterances share a batch.
DURATIONS = (0.3, 0.5, 0.3, 0.41, 0.5, 0.2, 0.41, 0.6)


def tone(
    path: Path, seconds: float = 0.5, rate: int = 16_000, hertz: float = 220.0, subtype: str | None = None
) -> Path:
    """A mono sine of amplitude 0.5; the suffix names the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, wave, rate, subtype=subtype)
    return path


def tones(folder: Path, durations: tuple[float, ...] = DURATIONS) -> Corpus:
    """A corpus of sines, no two alike."""
    utterances = [
        Utterance(f"u{i:02d}", tone(folder / f"u{i:02d}.wav", seconds, hertz=200 + 17 * i), label="ab"[i % 2])
        for i, seconds in enumerate(durations)
    ]
    return Corpus("tones", tuple(utterances), protocol="own", unit="speaker")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("torchaudio"):
        if TORCHAUDIO_FAULT:
            pytest.skip(f"torchaudio does not load: {TORCHAUDIO_FAULT}")
        pytest.importorskip("torchaudio")


def refusal(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The one line of the UserError that `call` must raise."""
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return tones(tmp_path / "recordings")


@pytest.fixture(scope="session")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A HuBERT with random weights: 3 states of width 32, the strides of the real one."""
    import torch
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hubert")
    HubertModel(HubertConfig(**SMALL)).save_pretrained(folder)
    return folder


SMALL: dict[str, Any] = {
    "conv_dim": (16,) * 7,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
