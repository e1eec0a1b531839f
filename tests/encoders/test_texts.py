"""Texts as vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from refusals import refusal
from transformers import BertModel, BertTokenizer

from bas.encoders.text import embed_texts

CPU = torch.device("cpu")


def test_padding_changes_no_text(bert: str) -> None:
    texts = ["the door", "the door is open the door is closed", "the door", "open"]
    found_UE = embed_texts(bert, texts, CPU)
    assert found_UE.shape == (4, 16)
    for text, found_E in zip(texts, found_UE, strict=True):
        np.testing.assert_allclose(embed_texts(bert, [text], CPU)[0], found_E, atol=1e-5)
    assert np.array_equal(found_UE[0], found_UE[2])
    assert np.abs(found_UE[0] - found_UE[1]).max() > 1e-3


def test_no_text_encoder_is_told_in_a_line(tmp_path: Path) -> None:
    message = refusal(embed_texts, str(tmp_path / "bert"), ["the door"], CPU)
    assert message.startswith(f"text encoder '{tmp_path}/bert': cannot be loaded: ")


def test_weights_that_are_not_there_are_not_drawn_at_random(bert: str, tmp_path: Path) -> None:
    """But for the pooler's, which nothing here uses: a masked language model has none."""
    model = BertModel.from_pretrained(bert)
    for left_out in ("pooler.dense.weight", "encoder.layer.1.output.dense.weight"):
        folder = tmp_path / left_out
        BertTokenizer.from_pretrained(bert).save_pretrained(folder)
        model.save_pretrained(folder, state_dict={k: v for k, v in model.state_dict().items() if k != left_out})
    assert np.array_equal(
        embed_texts(str(tmp_path / "pooler.dense.weight"), ["the door"], CPU), embed_texts(bert, ["the door"], CPU)
    )
    message = refusal(embed_texts, str(folder), ["the door"], CPU)
    assert message == f"text encoder {str(folder)!r}: 1 weights are missing from its files, {left_out} the first"
