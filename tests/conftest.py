"""What pytest itself asks for: no network, fixtures of several modules, what is skipped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test may ask the network

import pytest
from models import SMALL, WORDS
from sounds import tones

from bas.corpora import Corpus
from bas.encoders.base import TORCHAUDIO_FAULT


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("torchaudio"):
        if TORCHAUDIO_FAULT:
            pytest.skip(f"torchaudio does not load: {TORCHAUDIO_FAULT}")
        pytest.importorskip("torchaudio")


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


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT with random weights that knows WORDS."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    }
    BertModel(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(folder)
    return str(folder)
