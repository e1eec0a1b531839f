"""What small encoders are made of: of speech, of text."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "conv_dim": (16,) * 7,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "door", "is", "open", "closed"]
